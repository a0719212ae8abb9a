import time
import unittest


class TestApp(unittest.TestCase):
    def test_a_quick(self):
        pass

    def test_b_slow(self):
        time.sleep(100)

    def test_c_rest(self):
        pass
