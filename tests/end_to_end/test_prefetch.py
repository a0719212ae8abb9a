"""RabbitMQ hands a busy worker a message of each of its queues: an idle one gets the runs all the same."""

from __future__ import annotations

import json
import sys
import unittest

from ciapp.results.attempts import REPORTED
from ciapp.results.report import State
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, RabbitmqPostgresql, eventually

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


class TestPrefetch(RabbitmqPostgresql, HeldRuns):
    lease_s = 30.0  #: so that nothing is given to another for that reason

    def new_installation(self, *settings: str) -> Installation:
        return self.install(f"pythons = [{json.dumps(sys.executable)}]", *settings)

    def test_what_a_busy_worker_holds_back_is_tested_by_an_idle_one(self) -> None:
        self.start_worker("busy")
        held = self.push_held()
        run = self.running(held)
        files = {".ciapp.toml": f'python = ["{VERSION}"]\n', "tests/test_a.py": PASSING}
        commit = self.ci.push_commit(self.clone, files)
        eventually(lambda: [each.sends for each in self.ci.runs(commit)] == [1], "a message is under way")
        self.assertEqual(f"python{VERSION}", self.only_run(commit).environment)
        self.start_worker("idle")
        [attempts] = assert_one_right_report_each(self, self.ci, [commit])
        self.assertEqual(["idle"], [each.worker.partition("@")[0] for each in attempts])
        self.assertEqual(State.RUNNING, self.only_run(held).state)
        self.let_go(run)
        assert_one_right_report_each(self, self.ci, [held])
        self.assertEqual([REPORTED], self.endings(held))
        assert_nothing_is_left(self.ci)


if __name__ == "__main__":
    unittest.main()
