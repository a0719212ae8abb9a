"""kill -9 of Flower: it comes back where `ciapp up` runs it, and is missed by nobody else anywhere."""

from __future__ import annotations

import os
import re
import signal
import unittest

from ciapp.results.attempts import REPORTED
from tests.end_to_end.test_monitor import answers
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, eventually
from tests.support.processes import processes_with
from tests.support.servers import free_port

SWEPT_WITHIN_S = 30.0


class TestMonitor(HeldRuns):
    lease_s = 30.0  #: so that no fault here costs an attempt

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port()
        self.option = f"--port={self.port}"

    def push(self) -> str:
        return self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, "after")

    def wait_for_pages(self) -> int:
        """Until the monitor answers; returns its process."""
        eventually(lambda: answers(f"http://127.0.0.1:{self.port}/"), f"Flower answers: {self.ci.logs()}")
        [process] = [one for one in processes_with(self.option) if one in processes_with("monitor")]
        return process

    def assert_unhurt(self, *commits: str) -> None:
        attempts = assert_one_right_report_each(self, self.ci, commits)
        self.assertEqual([[REPORTED]] * len(commits), [[one.ending for one in each] for each in attempts])
        assert_nothing_is_left(self.ci)

    def test_up_says_so_and_starts_it_again(self) -> None:
        self.ci.processes[0].terminate()  # the dispatcher, which comes with the others
        self.ci.processes[0].wait()
        up = self.ci.start("up", "--concurrency=1", self.option)
        first = self.wait_for_pages()
        held = self.push_held()
        run = self.running(held)
        os.kill(first, signal.SIGKILL)
        self.assertNotEqual(first, self.wait_for_pages())
        said = (self.ci.folder / "up.log").read_text()
        self.assertEqual(["monitor"], re.findall(r"service ended service=(\S+) exit=-9", said))
        self.assertNotIn("service ended service=worker", said)
        self.let_go(run)
        self.assert_unhurt(held, self.push())
        up.terminate()
        self.assertEqual(0, up.wait(60))

    def test_alone_it_leaves_nothing_at_the_broker(self) -> None:
        worker = self.start_worker()
        monitor = self.ci.start("monitor", self.option)
        self.wait_for_pages()
        owners = self.ci.folder / "state" / "broker" / "owners"
        eventually(lambda: list(owners.glob(f"*-{monitor.pid}-*")), "it listens to events")
        os.killpg(monitor.pid, signal.SIGKILL)
        monitor.wait()
        commit = self.push()
        eventually(lambda: not list(owners.glob(f"*-{monitor.pid}-*")), "it is forgotten", SWEPT_WITHIN_S)
        queues = [each.name for each in (owners.parent / "queues").iterdir()]
        self.assertEqual([], [name for name in queues if name.startswith("celeryev")])
        self.assert_unhurt(commit)
        self.assertIsNone(worker.poll())
        self.ci.start("monitor", self.option)
        self.wait_for_pages()


if __name__ == "__main__":
    unittest.main()
