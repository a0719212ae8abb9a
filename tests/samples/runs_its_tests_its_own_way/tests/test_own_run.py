import os
import unittest


class TestApp(unittest.TestCase):
    def run(self, result=None):
        if self._testMethodName == "test_3":
            os._exit(0)
        super().run(result)
        if self._testMethodName == "test_1":
            os._exit(0)

    def test_1(self):
        pass

    def test_2(self):
        pass

    def test_3(self):
        pass
