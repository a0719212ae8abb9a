import os
import unittest

os.chdir(os.sep)


class TestSeen(unittest.TestCase):
    def test_one(self):
        pass
