import atexit
import time
import unittest


def go_on():
    time.sleep(100)


class TestApp(unittest.TestCase):
    def test_one(self):
        atexit.register(go_on)
