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


class TestTearDown(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        os._exit(0)

    def test_one(self):
        pass


class TestRest(unittest.TestCase):
    def test_one(self):
        pass


class Own(unittest.TestSuite):
    def run(self, result, debug=False):
        assert type(self) is Own
        return super().run(result, debug)


def load_tests(loader, tests, pattern):
    suite = Own()
    for case in (TestCrash, TestExit, TestHang, TestTearDown, TestRest):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
