"""A worker's folder of temporary files ends with the worker, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from ciapp.testing.temporary import sweep_folders
from tests.support.git_repositories import new_folder
from tests.support.workers import wait_until

OWNER = """
import os, sys, tempfile, time
from pathlib import Path
from ciapp.testing.temporary import use_own_folder

use_own_folder(Path(sys.argv[1]))
tempfile.mkdtemp(prefix="left-")
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


class TestOwnFolder(unittest.TestCase):
    def setUp(self):
        self.state = new_folder(self)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A process that has a folder of its own, and something in it; it ends with its standard input."""
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(self.state), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(owner.stdout.close)
        self.addCleanup(owner.wait)
        self.addCleanup(owner.stdin.close)
        self.addCleanup(self.kill_group, owner.pid)
        self.assertEqual(f"{owner.pid}\n", owner.stdout.readline())
        return owner

    @staticmethod
    def kill_group(pid: int) -> None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def folders(self) -> list[Path]:
        return [path for path in (self.state / "tmp").iterdir() if path.is_dir()]

    def test_temporary_files_stand_in_it(self):
        self.start()
        [own] = self.folders()
        self.assertEqual(1, len(list(own.glob("left-*"))))

    def test_it_goes_when_its_owner_ends(self):
        owner = self.start()
        owner.stdin.close()
        self.assertEqual(0, owner.wait(20))
        self.assertEqual([], self.folders())

    def test_that_of_a_killed_owner_goes_when_somebody_looks(self):
        owner = self.start()
        owner.kill()
        owner.wait()
        self.assertEqual(1, len(self.folders()))
        sweep_folders(self.state)
        self.assertEqual([], self.folders())

    def test_that_of_a_killed_owner_goes_when_the_next_one_starts(self):
        owner = self.start()
        owner.kill()
        owner.wait()
        next_owner = self.start()
        self.assertEqual([str(next_owner.pid)], [path.name.partition("-")[0] for path in self.folders()])

    def test_that_of_a_living_owner_stays_and_so_does_that_of_its_forks(self):
        owner = self.start("fork")
        sweep_folders(self.state)
        self.assertEqual(1, len(self.folders()))
        owner.kill()
        owner.wait()
        sweep_folders(self.state)
        self.assertEqual(1, len(self.folders()), "a fork still uses it")
        self.kill_group(owner.pid)

        def is_gone() -> bool:
            sweep_folders(self.state)
            return not self.folders()

        wait_until(is_gone, "the folder to go with the last fork")

    def test_one_that_was_never_locked_goes(self):
        (self.state / "tmp/123-unborn").mkdir(parents=True)
        sweep_folders(self.state)
        self.assertEqual([], self.folders())

    def test_owners_that_start_at_once_keep_theirs(self):
        owners = [
            subprocess.Popen(
                [sys.executable, "-c", OWNER, str(self.state)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        for owner in owners:
            self.assertEqual(f"{owner.pid}\n", owner.stdout.readline())
        self.assertEqual(6, len(self.folders()))
        for owner in owners:
            owner.communicate("")
        self.assertEqual([], self.folders())


if __name__ == "__main__":
    unittest.main()
