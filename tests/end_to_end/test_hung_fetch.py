"""A fetch from a server that never answers ends with its run, and with its worker."""

from __future__ import annotations

import os
import signal
import time
import unittest

from ciapp.results.report import State, Status
from tests.support.installation import PASSING, Installation, eventually
from tests.support.processes import GONE_WITHIN_S, gits_of, pool_processes
from tests.support.silence import SilentServer

BEAT_S = 1.0  #: until the worker has learned of it
SLACK_S = 3.0  #: a busy machine's


class TestHungFetch(unittest.TestCase):
    def setUp(self) -> None:
        server = SilentServer(self)
        url = f'clone_url = "http://{server.address}/team.git"'  # git has a helper for it
        self.ci = Installation(self, "lease_s = 600", "[repository.team]", url)
        self.ci.make_repository("other")
        clone = self.ci.make_repository()
        self.ci.start("dispatcher")
        self.worker = self.ci.start("worker", "--concurrency=1")
        self.commit = self.ci.push_commit(clone, {"tests/test_a.py": PASSING})
        eventually(lambda: server.connections, "it is connected")
        self.assertTrue(gits_of(self.ci.config))

    def assert_gone(self, within_s: float = GONE_WITHIN_S) -> None:
        eventually(lambda: not gits_of(self.ci.config), "git and its helpers are gone", within_s)

    def test_a_cancel_ends_it_and_frees_the_slot(self) -> None:
        self.ci.ciapp("cancel", "team", self.commit)
        began_s = time.monotonic()
        self.assert_gone(BEAT_S + GONE_WITHIN_S)
        other = self.ci.push_commit(self.ci.folder / "other", {"tests/test_a.py": PASSING})
        eventually(
            lambda: (
                self.ci.runs(other, "other") and self.ci.runs(other, "other")[0].state is not State.QUEUED
            ),
            "the slot takes another run",
            BEAT_S + GONE_WITHIN_S + SLACK_S - (time.monotonic() - began_s),
        )
        self.assertEqual(Status.PASSED, self.ci.report(other, "other").status)
        self.assertEqual(Status.CANCELLED, self.ci.report(self.commit).status)

    def test_it_dies_with_the_worker(self) -> None:
        os.kill(self.worker.pid, signal.SIGKILL)
        self.assert_gone()

    def test_it_dies_with_the_pool_process(self) -> None:
        before = gits_of(self.ci.config)
        for process in pool_processes(self.worker.pid):
            os.kill(process, signal.SIGKILL)
        eventually(lambda: not set(before) & set(gits_of(self.ci.config)), "they are gone", GONE_WITHIN_S)

    def test_a_worker_that_is_stopped_takes_it_along(self) -> None:
        self.worker.send_signal(signal.SIGTERM)
        self.worker.send_signal(signal.SIGQUIT)  # as it does itself, 30 s later
        self.worker.wait(60)
        self.assert_gone()
        self.assertEqual(State.QUEUED, self.ci.runs(self.commit)[0].state)


if __name__ == "__main__":
    unittest.main()
