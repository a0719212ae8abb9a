import os
import sys
import unittest


class TestApp(unittest.TestCase):
    def test_floods(self):
        os.write(1, b"first\n")
        for _ in range(400):
            os.write(1, b"x" * 50_000)
            os.write(2, b"y" * 1_000)
        os.write(1, b"\nlast")

    def test_is_quiet(self):
        sys.stderr.write("a word")
