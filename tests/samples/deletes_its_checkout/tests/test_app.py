import os
import shutil
import unittest


class TestApp(unittest.TestCase):
    def test_a_deletes(self):
        shutil.rmtree(os.getcwd())

    def test_b_fails(self):
        self.fail("told")
