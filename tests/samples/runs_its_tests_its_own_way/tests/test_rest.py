import unittest


class TestApp(unittest.TestCase):
    def test_one(self):
        pass
