import unittest


class TestApp(unittest.TestCase):
    def test_one(self):
        pass


def load_tests(loader, tests, pattern):
    return list(tests)
