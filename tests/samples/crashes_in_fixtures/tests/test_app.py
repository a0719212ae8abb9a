import os
import unittest


class TestSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("about to abort")
        os.abort()

    def test_one(self):
        pass

    def test_two(self):
        pass


class TestTearDown(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        os._exit(1)

    def test_one(self):
        pass


class TestRest(unittest.TestCase):
    def test_one(self):
        pass
