import threading
import time
import unittest


class TestApp(unittest.TestCase):
    def run(self, result=None):
        self.result = result
        super().run(result)

    def test_writes_a_failure_into_the_result(self):
        self.result.failures.append((self, "by hand"))
        threading.Thread(target=time.sleep, args=(100,), name="the long one").start()
