import unittest


def tearDownModule():
    raise OSError("module tear-down")


class TestOne(unittest.TestCase):
    def test_one(self):
        pass
