import atexit
import os
import unittest


class TestApp(unittest.TestCase):
    def test_one(self):
        atexit.register(os.abort)
