import unittest


def setUpModule():
    raise OSError("module set-up")


class TestOne(unittest.TestCase):
    def test_one(self):
        pass


class TestTwo(unittest.TestCase):
    def test_two(self):
        pass
