import itertools
import signal
import time
import unittest


class TestApp(unittest.TestCase):
    def test_in_c_deaf_to_sigterm(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sum(itertools.repeat(0))

    def test_in_python(self):
        print("last words")
        while True:
            time.sleep(0.01)

    def test_rest(self):
        pass


class TestFixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        time.sleep(100)

    def test_one(self):
        pass
