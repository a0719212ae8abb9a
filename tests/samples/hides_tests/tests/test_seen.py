import unittest


class TestSeen(unittest.TestCase):
    def test_one(self):
        pass
