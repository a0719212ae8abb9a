"""Two workers of one name: the second says so and does not start; one that was killed is followed at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import unittest

from ciapp.node import BEATS_WITHIN_S, take_name
from ciapp.results.workers import list_workers
from tests.support.aftermath import assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import eventually

ENDS_WITHIN_S = 60.0


class TestNames(HeldRuns):
    lease_s = 30.0

    def workers(self) -> list[tuple[str, str]]:
        """Each worker's name, and when it started."""
        found = list_workers(self.ci.database)
        return [(worker.name.partition("@")[0], str(worker.started_at)) for worker in found]

    def start_here(self) -> subprocess.Popen[bytes]:
        """A worker that is there."""
        worker = self.start_worker("same")
        eventually(lambda: f"same@{os.uname().nodename} ready" in self.ci.logs(), "it is there")
        eventually(self.workers, f"the ledger knows it {self.ci.logs()}")
        return worker

    def assert_refused(self, where: str, **variables: str) -> None:
        second = self.ci.start("worker", "--concurrency=1", "--hostname=same@%h", log="second", **variables)
        self.assertEqual(2, second.wait(ENDS_WITHIN_S))
        said = (self.ci.folder / "second.log").read_text()
        sentence = (
            rf"^ciapp: worker same@\S+ runs already {where}; "
            r"stop it, or give this one another name: --hostname=NAME@%h\n\Z"
        )
        self.assertRegex(said, re.compile(sentence, re.M))
        (self.ci.folder / "second.log").unlink()

    def test_the_second_does_not_start_and_the_first_keeps_its_run(self) -> None:
        first = self.start_here()
        known = self.workers()
        held = self.push_held()
        run = self.running(held)
        self.assert_refused("on this host")
        # Another host has another state folder, and here the same database.
        (self.ci.folder / "other").mkdir(mode=0o711)
        url = f"sqlite:///{self.ci.folder / 'state' / 'ledger.sqlite3'}"
        elsewhere = {"CIAPP_STATE_DIR": str(self.ci.folder / "other"), "CIAPP_DATABASE_URL": url}
        self.assert_refused(r"on \S+", **elsewhere)
        self.assertEqual(known, self.workers())
        self.let_go(run)
        [attempts] = assert_one_right_report_each(self, self.ci, [held])
        self.assertEqual(1, len(attempts))
        self.assertIsNone(first.poll())

    def test_after_a_kill_the_name_is_free_at_once(self) -> None:
        first = self.start_here()
        [(_, started_at)] = self.workers()
        file = self.ci.folder / "state" / "workers" / f"same@{os.uname().nodename}.lock"
        self.assertEqual(started_at, file.read_text())
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        started = time.monotonic()
        take_name(file.stem, self.ci.folder / "state", self.ci.database)
        self.assertLess(time.monotonic() - started, BEATS_WITHIN_S)
        self.assertEqual("same", self.workers()[0][0])  # the ledger still counts it


if __name__ == "__main__":
    unittest.main()
