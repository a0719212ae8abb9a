import sys
import unittest


def setUpModule():
    sys.exit("module set-up")


class TestOne(unittest.TestCase):
    def test_one(self):
        pass
