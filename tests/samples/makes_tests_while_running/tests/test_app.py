import unittest


class TestApp(unittest.TestCase):
    def test_listed(self):
        pass

    def check_late(self):
        print("late")

    def check_late_failure(self):
        self.fail("late")


class Maker(unittest.TestSuite):
    def __iter__(self):
        yield TestApp("check_late")
        yield TestApp("check_late_failure")

    def _removeTestAtIndex(self, index):
        pass


class Copier(unittest.TestSuite):
    """Runs copies of its tests."""

    def run(self, result, debug=False):
        for test in self._tests:
            TestApp(test._testMethodName).run(result)
        return result


def load_tests(loader, tests, pattern):
    return unittest.TestSuite([Maker(), Copier([TestApp("test_listed")])])
