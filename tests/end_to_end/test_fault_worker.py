"""Workers that stop, die or are replaced in the middle of their runs: each commit ends with one report."""

from __future__ import annotations

import unittest

from ciapp.results.report import State, Status
from ciapp.results.store import load_report
from tests.support.held import BOTH_PASSED, HeldRuns
from tests.support.installation import eventually
from tests.support.processes import Suspended


class TestSuspended(HeldRuns):
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
        before = self.held_processes()
        self.start_worker("second")
        with Suspended(worker.pid):
            second = self.running(commit, 2)
            self.assertLessEqual(set(before), set(self.held_processes()))
        eventually(lambda: not set(before) & set(self.held_processes()), "its test processes die", 10)
        evidence = eventually(lambda: load_report(self.ci.database, first.id, 1), "the evidence is kept")

        self.assertEqual((Status.CANCELLED, {"passed": 1, "not-run": 1}), (evidence.status, evidence.counts))
        self.assertEqual(State.RUNNING, self.only_run(commit).state)
        self.let_go(second)
        self.assertEqual(BOTH_PASSED, self.ci.report(commit).counts)


if __name__ == "__main__":
    unittest.main()
