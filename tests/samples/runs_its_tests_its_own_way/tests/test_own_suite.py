import time
import unittest


class Slow(unittest.TestSuite):
    def run(self, result, debug=False):
        super().run(result)
        time.sleep(100)


class TestApp(unittest.TestCase):
    def test_one(self):
        pass


def load_tests(loader, tests, pattern):
    return Slow(tests)
