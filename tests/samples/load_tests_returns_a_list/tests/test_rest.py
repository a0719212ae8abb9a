import unittest


class TestRest(unittest.TestCase):
    def test_one(self):
        pass
