import os
import unittest


class TestOne(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("class set-up")

    def test_crash(self):
        os.abort()


class TestTwo(unittest.TestCase):
    def test_two(self):
        pass


class Silent(unittest.TestSuite):
    """Runs its tests behind everybody's back."""

    def run(self, result, debug=False):
        super().run(unittest.TestResult())
        return result


def load_tests(loader, tests, pattern):
    suite = Silent()
    for case in (TestOne, TestTwo):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
