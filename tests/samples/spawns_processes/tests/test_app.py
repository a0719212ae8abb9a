import multiprocessing
import os
import unittest


def square(number):
    return number * number


class TestApp(unittest.TestCase):
    def test_spawned_pool(self):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            self.assertEqual([0, 1, 4], pool.map(square, range(3)))

    def test_children_inherit_no_channel(self):
        import subprocess
        import sys

        listing = subprocess.run(
            [sys.executable, "-c", "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[3:])"],
            stdout=subprocess.PIPE,
            close_fds=False,
            check=True,
        )
        # What is left is the descriptor that the listing itself was read from.
        self.assertEqual(b"[3]", listing.stdout.strip())
