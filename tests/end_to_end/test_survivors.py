"""Nothing that a run started outlives it: not a cancel, nor the death of its worker."""

from __future__ import annotations

import os
import signal
import unittest
import uuid

from ciapp.results.report import State, Status
from tests.support.installation import Embedded, Installation, eventually
from tests.support.processes import GONE_WITHIN_S, pool_processes, processes_with
from tests.support.sandboxes import WEAK

DAEMON = """\
import subprocess
import sys
import time
import unittest


class TestDaemon(unittest.TestCase):
    def test_leaves_a_daemon(self):
        sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        for _ in range(2):
            subprocess.Popen([sys.executable, "-c", sleep, "MARKER"], start_new_session=True)
        time.sleep(600)
"""


class Survivors:
    """Mixed into a test case per level of the sandbox."""

    level = ""

    def setUp(self):
        self.marker = f"marker-{uuid.uuid4().hex}"
        self.ci: Installation = self.install(f'sandbox = "{self.level}"', "lease_s = 600")
        clone = self.ci.make_repository()
        self.ci.start("dispatcher")
        self.worker = self.ci.start("worker", "--concurrency=1")
        self.commit = self.ci.push_commit(clone, {"tests/test_a.py": DAEMON.replace("MARKER", self.marker)})
        eventually(lambda: len(processes_with(self.marker)) == 2, "the daemons run")

    def assert_gone_soon(self) -> None:
        eventually(lambda: not processes_with(self.marker), "the daemons are gone", GONE_WITHIN_S)

    def test_a_cancelled_run_leaves_nothing(self):
        self.ci.ciapp("cancel", "team", self.commit)
        self.assert_gone_soon()
        self.assertEqual(Status.CANCELLED, self.ci.report(self.commit).status)

    def test_a_killed_worker_leaves_nothing(self):
        os.kill(self.worker.pid, signal.SIGKILL)
        self.assert_gone_soon()

    def test_a_killed_pool_process_leaves_nothing_and_its_run_is_queued_again(self):
        for process in pool_processes(self.worker.pid):
            os.kill(process, signal.SIGKILL)
        eventually(lambda: self.ci.runs(self.commit)[0].attempt == 2, "the run is given out again", 30)
        [run] = self.ci.runs(self.commit)
        self.assertEqual(State.RUNNING, run.state)
        eventually(lambda: len(processes_with(self.marker)) == 2, "only the second attempt's daemons run")


class TestBubblewrap(Survivors, Embedded, unittest.TestCase):
    level = "auto"


class TestLimits(Survivors, Embedded, unittest.TestCase):
    level = WEAK


if __name__ == "__main__":
    unittest.main()
