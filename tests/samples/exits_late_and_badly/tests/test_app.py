import atexit
import os
import time
import unittest


def go_on():
    time.sleep(3)
    os._exit(3)


class TestApp(unittest.TestCase):
    def test_one(self):
        atexit.register(go_on)
