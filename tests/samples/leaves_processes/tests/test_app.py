import os
import subprocess
import sys
import time
import unittest

SLEEP = [sys.executable, "-c", "import time; time.sleep(100)"]


class TestApp(unittest.TestCase):
    def test_a_leaves_a_daemon(self):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(100)
            os._exit(0)

    def test_b_leaves_a_program(self):
        subprocess.Popen(SLEEP, start_new_session=True)
