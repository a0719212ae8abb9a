import unittest


class TestWell(unittest.TestCase):
    def test_one(self):
        pass
