import os
import sys
import unittest


class TestCrash(unittest.TestCase):
    def test_one(self):
        pass


class TestExit(unittest.TestCase):
    def test_one(self):
        pass


class TestInterrupt(unittest.TestCase):
    def test_one(self):
        pass

    def test_three(self):
        pass

    def test_two(self):
        raise KeyboardInterrupt


class Crashing(unittest.TestSuite):
    def run(self, result, debug=False):
        os.abort()


class Exiting(unittest.TestSuite):
    def run(self, result, debug=False):
        sys.exit("run")


class Harmless(unittest.TestSuite):
    pass


def load_tests(loader, tests, pattern):
    return unittest.TestSuite(
        [
            Crashing([loader.loadTestsFromTestCase(TestCrash)]),
            Exiting([loader.loadTestsFromTestCase(TestExit)]),
            Harmless([loader.loadTestsFromTestCase(TestInterrupt)]),
        ]
    )
