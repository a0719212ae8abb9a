import unittest

loader = unittest.defaultTestLoader
loader.testMethodPrefix = "check"
loader.sortTestMethodsUsing = lambda one, other: (one < other) - (one > other)


class TestApp(unittest.TestCase):
    def test_that_nobody_runs(self):
        pass

    def check_one(self):
        pass

    def check_two(self):
        self.fail("two")
