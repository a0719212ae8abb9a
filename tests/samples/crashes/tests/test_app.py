import ctypes
import os
import signal
import unittest


class TestApp(unittest.TestCase):
    def test_aborts(self):
        os.abort()

    def test_goes_well(self):
        pass

    def test_kills_itself(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def test_kills_its_group(self):
        os.killpg(0, signal.SIGKILL)

    def test_reads_address_zero(self):
        ctypes.string_at(0)

    def test_terminates_itself(self):
        os.kill(os.getpid(), signal.SIGTERM)
