import threading
import time
import unittest


class TestApp(unittest.TestCase):
    def test_starts_a_thread(self):
        threading.Thread(target=time.sleep, args=(100,), name="the long one").start()
