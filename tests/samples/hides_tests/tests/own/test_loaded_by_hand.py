import unittest


class TestLoadedByHand(unittest.TestCase):
    def test_one(self):
        pass
