import unittest


class TestApp(unittest.TestCase):
    def check_something(self):
        pass
