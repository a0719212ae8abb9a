"""Workers that stop, die or are replaced in the middle of their runs: each commit ends with one report."""

from __future__ import annotations

import subprocess
import unittest
import uuid

from ciapp.results.report import State, Status
from ciapp.results.runs import Run, list_attempts
from ciapp.results.store import load_report
from tests.support.installation import Installation, eventually
from tests.support.processes import Suspended, processes_with

LEASE_S = 2.0
#: Tests that go on, in a process with the marker, until `let_go` is in their checkout.
HELD = """\
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
BOTH_PASSED = {"passed": 2}


class HeldRun(unittest.TestCase):
    """An installation, and commits whose test runs until it is let go."""

    def setUp(self) -> None:
        self.ci: Installation = self.install(f"lease_s = {LEASE_S}")
        self.clone = self.ci.make_repository()
        self.ci.start("dispatcher")
        self.marker = f"marker-{uuid.uuid4().hex}"

    def install(self, *settings: str) -> Installation:
        return Installation(self, *settings)

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        return self.ci.start("worker", "--concurrency=1", f"--hostname={name}@%h", log=name)

    def push_held(self) -> str:
        """Push a commit whose test is held; it has started."""
        test = HELD.replace("MARKER", self.marker)
        commit = self.ci.push_commit(self.clone, {"tests/test_a.py": test})
        eventually(lambda: processes_with(self.marker), f"the test runs: {self.ci.logs()}")
        return commit

    def let_go(self, run: Run) -> None:
        """Let the test of a run go on that some worker holds."""
        slot = run.worker.rpartition("#")[2]
        (self.ci.folder / "state" / "slots" / slot / "checkouts" / "team" / "let_go").touch()

    def only_run(self, commit: str) -> Run:
        [run] = self.ci.runs(commit)
        return run

    def running(self, commit: str, attempt: int) -> Run:
        """The run, once this attempt's test is held."""

        def held() -> Run | None:
            run = self.only_run(commit)
            return run if run.attempt == attempt and run.tests_done == 1 else None

        return eventually(held, f"attempt {attempt} is tested: {self.ci.logs()}")

    def endings(self, commit: str) -> list[str]:
        """How each attempt ended."""
        return [each.ending for each in list_attempts(self.ci.database, self.only_run(commit).id)]


class TestSuspended(HeldRun):
    """SIGSTOP for longer than the lease, then SIGCONT: the worker believes that it holds its run."""

    def test_a_report_that_comes_late_is_refused_and_kept_as_evidence(self) -> None:
        worker = self.start_worker("first")
        commit = self.push_held()
        first = self.running(commit, 1)
        self.start_worker("second")
        with Suspended(worker.pid):
            second = self.running(commit, 2)
            self.let_go(first)  # its tests end, and there is nobody to tell
            self.let_go(second)
            self.assertEqual(BOTH_PASSED, self.ci.report(commit).counts)
        evidence = eventually(lambda: load_report(self.ci.database, first.id, 1), "the evidence is kept")

        self.assertEqual((BOTH_PASSED, first.worker), (evidence.counts, evidence.worker))
        self.assertEqual((Status.PASSED, 2), (self.only_run(commit).status, self.only_run(commit).attempt))
        self.assertEqual([f"worker {first.worker} was silent for 2 s", "reported"], self.endings(commit))
        self.assertEqual(second.worker, self.ci.report(commit).worker)

    def test_what_it_still_runs_dies_and_what_it_found_so_far_is_kept(self) -> None:
        worker = self.start_worker("first")
        commit = self.push_held()
        first = self.running(commit, 1)
        before = processes_with(self.marker)
        self.start_worker("second")
        with Suspended(worker.pid):
            second = self.running(commit, 2)
            self.assertLessEqual(set(before), set(processes_with(self.marker)))
        eventually(lambda: not set(before) & set(processes_with(self.marker)), "its test processes die", 10)
        evidence = eventually(lambda: load_report(self.ci.database, first.id, 1), "the evidence is kept")

        self.assertEqual((Status.CANCELLED, {"passed": 1, "not-run": 1}), (evidence.status, evidence.counts))
        self.assertEqual(State.RUNNING, self.only_run(commit).state)
        self.let_go(second)
        self.assertEqual(BOTH_PASSED, self.ci.report(commit).counts)


if __name__ == "__main__":
    unittest.main()
