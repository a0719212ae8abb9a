"""Commits whose tests go on until the test of ours lets them go."""

from __future__ import annotations

import subprocess
import unittest
import uuid
from pathlib import Path

from ciapp.results.attempts import list_attempts
from ciapp.results.report import State
from ciapp.results.runs import Run
from tests.support.installation import TEST_ANEW, Installation, eventually
from tests.support.processes import processes_with

BOTH_PASSED = {"passed": 2}
#: Goes on, in a process with the marker, until `let_go` is in its checkout.
TEST = """\
import subprocess
import sys
import unittest

WAIT = "import pathlib, time\\nwhile not pathlib.Path('let_go').exists(): time.sleep(0.02)"


class TestHeld(unittest.TestCase):
    def test_first(self):
        pass

    def test_held(self):
        subprocess.run([sys.executable, "-c", WAIT, "MARKER"], check=True)
"""


class HeldRuns(unittest.TestCase):
    """An installation with a dispatcher, and commits whose test is held."""

    lease_s = 2.0

    def setUp(self) -> None:
        # Held for as long as it takes: not to be cut short where everything is slow.
        limit = "limits.test_s = 600"
        lease = f"lease_s = {self.lease_s}"
        self.ci = self.new_installation(lease, "reconcile_s = 5", limit, TEST_ANEW)
        self.clone = self.ci.make_repository()
        self.ci.start("dispatcher")
        self.marker = f"marker-{uuid.uuid4().hex}"

    def new_installation(self, *settings: str) -> Installation:
        return Installation(self, *settings)

    def start_worker(self, name: str = "worker") -> subprocess.Popen[bytes]:
        """A worker of one slot with a name of its own."""
        return self.ci.start("worker", "--concurrency=1", f"--hostname={name}@%h", log=name)

    def held_test(self) -> str:
        """A module of tests, one of which is held."""
        return TEST.replace("MARKER", self.marker)

    def push_held(self) -> str:
        """Push a commit whose test is held."""
        return self.ci.push_commit(self.clone, {"tests/test_a.py": self.held_test()}, uuid.uuid4().hex)

    def running(self, commit: str, attempt: int = 1) -> Run:
        """The run, once this attempt's test is held."""

        def held() -> Run | None:
            runs = self.ci.runs(commit)
            found = [run for run in runs if run.state is State.RUNNING and run.attempt == attempt]
            return found[0] if found and found[0].tests_done == 1 else None

        return eventually(held, f"attempt {attempt} is tested: {self.ci.logs()}")

    def let_go(self, run: Run) -> None:
        """Let the test of a run go on that some worker holds."""
        slot = run.worker.rpartition("#")[2]
        self._flag(self.ci.folder / "state" / "slots" / slot).touch()

    def let_all_go(self) -> None:
        """Let the tests of all slots go on, until their next checkout."""
        for slot in (self.ci.folder / "state" / "slots").iterdir():
            if self._flag(slot).parent.is_dir():
                self._flag(slot).touch()

    def held_processes(self) -> list[int]:
        """The processes of tests that are held."""
        return processes_with(self.marker)

    def only_run(self, commit: str) -> Run:
        """The commit's run as it is now."""
        [run] = self.ci.runs(commit)
        return run

    def endings(self, commit: str) -> list[str]:
        """How each attempt ended."""
        return [each.ending for each in list_attempts(self.ci.database, self.only_run(commit).id)]

    @staticmethod
    def _flag(slot: Path) -> Path:
        return slot / "checkouts" / "team" / "let_go"
