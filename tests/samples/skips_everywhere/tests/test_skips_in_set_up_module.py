import unittest


def setUpModule():
    raise unittest.SkipTest("in setUpModule")


class TestModule(unittest.TestCase):
    def test_one(self):
        self.fail()
