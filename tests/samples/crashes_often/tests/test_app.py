import os
import unittest


class TestApp(unittest.TestCase):
    def test_1(self):
        os._exit(1)

    def test_2(self):
        os._exit(1)

    def test_3(self):
        os._exit(1)

    def test_4(self):
        os._exit(1)

    def test_5(self):
        pass
