import os
import unittest


class TestApp(unittest.TestCase):
    def test_bytes(self):
        os.write(1, b"nul \0 latin \xe9 cut \xe2\x82 colour \x1b[31m euro \xe2\x82\xac surrogate \xed\xa0\x80 mark \x1e\n")

    def test_message(self):
        self.fail("nul \0 surrogate \ud800 colour \x1b[31m euro \u20ac")
