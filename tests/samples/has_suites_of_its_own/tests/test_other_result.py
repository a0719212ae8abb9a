import os
import sys
import time
import unittest
class TestCrash(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.abort()

    def test_one(self):
        pass


class TestExit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.exit("class set-up")

    def test_one(self):
        pass


class TestHang(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        time.sleep(100)

    def test_one(self):
        pass


class TestRaises(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise ValueError("class set-up")

    def test_one(self):
        pass


class TestRest(unittest.TestCase):
    def test_one(self):
        pass


class Forwarding(unittest.TestResult):
    """Tells another result what it is told."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def startTest(self, test):
        self.other.startTest(test)

    def stopTest(self, test):
        self.other.stopTest(test)

    def addSuccess(self, test):
        self.other.addSuccess(test)

    def addError(self, test, err):
        self.other.addError(test, err)


class Forwarder(unittest.TestSuite):
    def run(self, result, debug=False):
        super().run(Forwarding(result))
        return result


def load_tests(loader, tests, pattern):
    suite = Forwarder()
    for case in (TestCrash, TestExit, TestHang, TestRaises, TestRest):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
