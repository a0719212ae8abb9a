import unittest


class TestApp(unittest.TestCase):
    def check_one(self):
        pass
