import unittest


class Strict(unittest.TextTestResult):
    """Wants every test to run, and none to leave a file open."""

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.addFailure(test, (AssertionError, AssertionError(f"skipped: {reason}"), None))

    def addExpectedFailure(self, test, err):
        raise LookupError("no failure is to be expected")

    def stopTest(self, test):
        if getattr(test, "leftover", None):
            self.addError(test, (OSError, OSError(f"{test.leftover} is left"), None))
        super().stopTest(test)


unittest.TextTestRunner.resultclass = Strict


class TestApp(unittest.TestCase):
    @unittest.expectedFailure
    def test_expected(self):
        self.fail("expected")

    def test_leftover(self):
        self.leftover = "file"

    def test_passes(self):
        for i in range(2):
            with self.subTest(i=i):
                pass

    @unittest.skip("why")
    def test_skipped(self):
        pass


@unittest.skip("not today")
class TestSkipped(unittest.TestCase):
    def test_one(self):
        pass
