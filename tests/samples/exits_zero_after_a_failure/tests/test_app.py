import os
import unittest


class TestApp(unittest.TestCase):
    def test_fails(self):
        self.fail()


class TestLast(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        os._exit(0)

    def test_one(self):
        pass
