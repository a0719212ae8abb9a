"""Clocks that are set back an hour while work goes on: nothing ends early, nothing lasts, the order stays."""

from __future__ import annotations

import json
import os
import signal
import time
import unittest

from ciapp.intake.spool import read_records
from ciapp.results.attempts import REPORTED, list_attempts
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.clocks import Clock
from tests.support.dispatching import DispatcherTest
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, eventually

HOUR = 3600
SOON_S = 15.0  #: far less than the hour that a clock lost


class TestSetBack(HeldRuns):
    """The time of day of dispatcher, worker, hook and commands."""

    lease_s = 4.0

    def new_installation(self, *settings: str) -> Installation:
        ci = Installation(self, *settings)
        self.clock = Clock(ci.folder)
        ci.environment |= self.clock.environment
        return ci

    def push(self) -> str:
        return self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, f"{time.monotonic()}")

    def workers(self) -> list[str]:
        """The workers that `ciapp status` counts."""
        found = json.loads(self.ci.ciapp("status", "--json"))["workers"]
        return [worker["name"].partition("@")[0] for worker in found]

    def test_runs_keep_their_order_and_their_workers(self) -> None:
        worker = self.start_worker("first")
        held = self.push_held()
        run = self.running(held)
        commits = [self.push()]
        eventually(lambda: self.ci.runs(commits[0]), "it is recorded")
        self.clock.set(-HOUR)
        commits.append(self.push())
        eventually(lambda: self.workers() == ["first"], "the worker is still counted", SOON_S)
        time.sleep(self.lease_s)  # it could be taken for silent
        self.let_go(run)
        attempts = assert_one_right_report_each(self, self.ci, [held, *commits])
        self.assertEqual([[REPORTED]] * 3, [[one.ending for one in each] for each in attempts])
        started = [list_attempts(self.ci.database, self.only_run(each).id)[0].started_at for each in commits]
        self.assertEqual(sorted(started), started)
        self.assertGreaterEqual(self.ci.report(held).duration_s, 0)
        self.assertIsNone(worker.poll())
        assert_nothing_is_left(self.ci)

    def test_a_worker_that_dies_then_is_missed_in_time(self) -> None:
        worker = self.start_worker("first")
        held = self.push_held()
        self.running(held)
        eventually(lambda: self.workers() == ["first"], "the worker is counted")
        os.killpg(worker.pid, signal.SIGKILL)
        self.clock.set(-HOUR)
        eventually(lambda: self.endings(held)[0], f"its lease ends: {self.ci.logs()}", SOON_S)
        self.assertEqual([], self.workers())
        self.start_worker("second")
        self.let_go(self.running(held, 2))
        [attempts] = assert_one_right_report_each(self, self.ci, [held])
        self.assertIn("was silent for 4 s", attempts[0].ending)


class TestSpool(DispatcherTest):
    def test_pushes_that_wait_are_recorded_in_the_order_in_which_they_came(self) -> None:
        commits: list[str] = []
        for number in range(3):
            commits.append(self.tree.commit(f"Change {number}"))
            known = set(self.records())
            self.tree.push("HEAD:main")
            [record] = set(self.records()) - known
            moment = record.stat().st_mtime - number * HOUR  # when it came, by a clock that was set back
            os.utime(record, (moment, moment))
        records = read_records(self.bare)
        self.assertEqual(commits, [record.updates[0].new for record in records])
        self.step()
        self.assertEqual(commits, self.commits_with_run())


if __name__ == "__main__":
    unittest.main()
