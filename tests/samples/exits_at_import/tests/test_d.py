import unittest


class TestD(unittest.TestCase):
    def test_one(self):
        pass
