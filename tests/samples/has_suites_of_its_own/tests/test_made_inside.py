import os
import unittest


def setUpModule():
    os.abort()


class TestApp(unittest.TestCase):
    def test_one(self):
        pass


class Sorted(unittest.TestSuite):
    """Runs its tests in another suite, made only then."""

    def run(self, result, debug=False):
        tests = [test for case in self for test in case]
        return unittest.TestSuite(sorted(tests, key=str)).run(result)


def load_tests(loader, tests, pattern):
    return Sorted(tests)
