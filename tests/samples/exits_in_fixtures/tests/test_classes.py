import sys
import unittest


class TestSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.exit("class set-up")

    def test_one(self):
        pass


class TestTearDown(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        raise KeyboardInterrupt("class tear-down")

    def test_one(self):
        pass


class TestWithout(unittest.TestCase):
    def test_one(self):
        pass
