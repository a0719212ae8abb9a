import io
import os
import sys
import unittest


class TestApp(unittest.TestCase):
    def test_a_replaces_sys_stdout(self):
        sys.stdout = io.StringIO()
        sys.stderr = None

    def test_b_closes_the_streams(self):
        sys.__stdout__.close()
        sys.__stderr__.close()

    def test_c_closes_the_descriptors(self):
        for descriptor in (0, 1, 2):
            try:
                os.close(descriptor)
            except OSError:
                pass

    def test_d_closes_the_next_253(self):
        os.closerange(3, 256)

    def test_e_fails(self):
        self.fail("heard")
