"""Workers that are restarted one by one, and a whole machine that is: each commit ends with one report."""

from __future__ import annotations

import subprocess
import threading
import unittest

import pytest

from ciapp.results.report import State
from ciapp.results.runs import REPORTED, find_runs
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.installation import (
    SLOW,
    TEST_ANEW,
    Embedded,
    Installation,
    RabbitmqPostgresql,
    eventually,
)

BRIEF = SLOW.replace("time.sleep(5)", "time.sleep(0.3)")
PUSH_EVERY_S = 0.5
STOPPED_WITHIN_S = 30.0  #: what is in flight takes less than a second, on a machine that does much else


class Rolling:
    """SIGTERM to one worker after the other, while commits come in."""

    names = ("one", "two")

    def setUp(self) -> None:
        self.ci: Installation = self.install(TEST_ANEW)
        self.clone = self.ci.make_repository()
        self.ci.start("dispatcher")
        self.commits: list[str] = []
        self.enough = threading.Event()

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        return self.ci.start("worker", "--concurrency=1", f"--hostname={name}@%h", log=name)

    def push_on(self) -> None:
        """Push commit after commit until it is enough."""
        while not self.enough.wait(PUSH_EVERY_S):
            test = BRIEF + f"# {len(self.commits)}\n"
            self.commits.append(self.ci.push_commit(self.clone, {"tests/test_a.py": test}))

    def finished_by(self, name: str) -> int:
        """How many commits this worker has tested."""
        runs = find_runs(self.ci.database, "team", list(self.commits))
        return sum(run.state is State.FINISHED and run.worker.startswith(f"{name}@") for run in runs)

    def wait_for_work(self, name: str, number: int) -> None:
        eventually(lambda: self.finished_by(name) >= number, f"{name} works: {self.ci.logs()}")

    def test_it_loses_no_attempt(self) -> None:
        workers = {name: self.start_worker(name) for name in self.names}
        pushing = threading.Thread(target=self.push_on)
        pushing.start()
        self.addCleanup(pushing.join)
        self.addCleanup(self.enough.set)
        for name, worker in workers.items():
            self.wait_for_work(name, 1)
            worker.terminate()
            self.assertEqual(0, worker.wait(STOPPED_WITHIN_S))
            done = self.finished_by(name)
            workers[name] = self.start_worker(name)
            self.wait_for_work(name, done + 1)
        self.enough.set()
        pushing.join()

        attempts = assert_one_right_report_each(self, self.ci, self.commits)
        self.assertEqual(
            [[REPORTED]] * len(self.commits), [[one.ending for one in each] for each in attempts]
        )
        assert_nothing_is_left(self.ci)


@pytest.mark.slow
class TestRollingEmbedded(Rolling, Embedded, unittest.TestCase):
    pass


class TestRollingRabbitmqPostgresql(Rolling, RabbitmqPostgresql, unittest.TestCase):
    pass


if __name__ == "__main__":
    unittest.main()
