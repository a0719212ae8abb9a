import builtins
import faulthandler
import json
import locale
import os
import signal
import sys
import threading
import time
import traceback
import unittest


def broken(*args, **kwargs):
    raise AssertionError("patched")


class TestApp(unittest.TestCase):
    def test_a_changes(self):
        os.chdir("/")
        os.umask(0o777)
        os.environ.clear()
        sys.path.clear()
        sys.argv.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        locale.setlocale(locale.LC_ALL, "C")
        os.set_blocking(1, False)
        faulthandler.disable()
        sys.setrecursionlimit(200)
        sys.settrace(None)
        time.monotonic = time.time = time.perf_counter = lambda: 0.0
        os.write = os.getpid = os.dup2 = os.close = broken
        json.dumps = builtins.open = threading.enumerate = broken
        traceback.format_exc = broken

    def test_b_fails(self):
        self.fail("told")

    def test_c_passes(self):
        pass
