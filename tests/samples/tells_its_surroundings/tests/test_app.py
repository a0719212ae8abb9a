import json
import os
import signal
import sys
import unittest
import warnings

import __main__

AT_IMPORT = [str(entry) for entry in warnings.filters]


class TestApp(unittest.TestCase):
    def test_tells(self):
        told = {
            "path": sys.path,
            "argv": sys.argv,
            "flags": str(sys.flags),
            "filters at import": AT_IMPORT,
            "filters": [str(entry) for entry in warnings.filters],
            "main": [__main__.__name__, __main__.__package__, __main__.__spec__.name, __main__.__file__],
            "cwd": os.getcwd(),
            "stdin": sys.stdin.read(),
            "SIGINT": str(signal.getsignal(signal.SIGINT)).partition(" at ")[0],
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "umask": os.umask(0o22),
            "hash": hash("a"),
            "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:4],
        }
        print("\n" + json.dumps(told))
