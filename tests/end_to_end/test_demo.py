"""`ciapp demo`, the first command of the README, on a machine where nothing else is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from tests.support.git_repositories import new_folder
from tests.support.installation import CODE, eventually

ENDS_WITHIN_S = 120.0  #: on a machine that does much else; alone it takes 5 s
GIT = {"GIT_CONFIG_NOSYSTEM": "1"}


class TestDemo(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.folder.chmod(0o755)
        self.home, self.temporary = self.folder / "home", self.folder / "tmp"
        self.home.mkdir()
        self.temporary.mkdir(mode=0o755)

    def start(self) -> subprocess.Popen[str]:
        demo = subprocess.Popen(
            [sys.executable, "-m", "ciapp.cli", "demo"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "TMPDIR": str(self.temporary),
                "PYTHONPATH": str(CODE),
                **GIT,
            },
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell that runs us in the background has it ignored, which would be inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.addCleanup(self.end, demo)
        return demo

    @staticmethod
    def end(demo: subprocess.Popen[str]) -> None:
        demo.kill()
        demo.communicate()

    def survivors(self) -> list[str]:
        """Processes that were started with the demo's folder for temporary files."""
        mark = f"TMPDIR={self.temporary}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def assert_nothing_is_left(self) -> None:
        eventually(lambda: not self.survivors(), f"no process is left: {self.survivors()}")
        self.assertEqual([], list(self.temporary.iterdir()))
        self.assertEqual([], list(self.home.iterdir()))

    def test_it_shows_a_red_report_and_a_green_one_and_leaves_nothing(self) -> None:
        demo = self.start()
        said, _ = demo.communicate(timeout=ENDS_WITHIN_S)
        self.assertEqual(0, demo.returncode, said)
        red, green = said.index("\n  .F\n"), said.index("\n  ..\n")
        failed = said.index("Ran 2 tests in ", red), said.index("\n  FAILED (failures=1)\n", red)
        self.assertTrue(red < failed[0] < failed[1] < green < said.index("\n  OK\n", green), said)
        self.assertIn("AssertionError: 0 != 0.5", said)
        self.assertRegex(said, r"Flower shows them at http://127\.0\.0\.1:\d+/")
        self.assertEqual(2, len(re.findall(r"remote: ciapp: recorded 1 ref update of team; follow", said)))
        self.assertIn("hook install path/to/team.git --name team", said)
        self.assert_nothing_is_left()

    def test_ctrl_c_leaves_nothing_either(self) -> None:
        demo = self.start()
        assert demo.stdout is not None
        for line in demo.stdout:
            if "remote: ciapp: recorded" in line:
                break
        demo.send_signal(signal.SIGINT)
        self.assertEqual(130, demo.wait(ENDS_WITHIN_S))
        self.assert_nothing_is_left()


if __name__ == "__main__":
    unittest.main()
