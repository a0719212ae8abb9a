import unittest


class TestA(unittest.TestCase):
    def test_one(self):
        pass
