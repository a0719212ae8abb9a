"""Disks that are full, one after the other: pushes succeed, and with room again all commits get verdicts."""

from __future__ import annotations

import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager

from ciapp.errors import CiError
from ciapp.intake.spool import spool_folder
from ciapp.results.attempts import REPORTED
from ciapp.results.queue import RESEND_TO_IDLE_AFTER_S
from ciapp.results.report import State, Status
from ciapp.results.workers import list_workers
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.disks import SmallDisk
from tests.support.git_repositories import new_folder
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, eventually

FULL_S = 2.0  #: how long nothing can be written
PUSH_WITHIN_S = 5.0  #: on a machine that does much else
#: Needs room in its checkout after it was let go.
WRITES = """
    def tearDown(self):
        pathlib.Path(self.id()).write_bytes(bytes(2**16))
"""


class TestFullDisk(HeldRuns):
    lease_s = 30.0  #: so that no fault here costs an attempt by its end

    def new_installation(self, *settings: str) -> Installation:
        ci = Installation(self, *settings)
        ledger = ci.folder / "ledger" / "ledger.sqlite3"
        self.state = SmallDisk(self, ci.folder / "state", 64, 0o711)
        self.slots = SmallDisk(self, ci.folder / "state" / "slots", 64, 0o711)
        self.ledger = SmallDisk(self, ledger.parent, 8)
        ci.config.write_text(f'database_url = "sqlite:///{ledger}"\n' + ci.config.read_text())
        return ci

    def setUp(self) -> None:
        super().setUp()
        folder = spool_folder(self.ci.folder / "team.git")
        self.spool = SmallDisk(self, folder, 1, folder.stat().st_mode & 0o7777)
        self.worker = self.start_worker()

    def push(self, *warnings: str) -> str:
        """Push a commit; the pusher is warned by these words, and not kept waiting. Returns the commit."""
        commit = self.ci.commit(self.clone, {"tests/test_a.py": PASSING})
        started = time.monotonic()
        said = self.ci.push(self.clone)
        self.assertLess(time.monotonic() - started, PUSH_WITHIN_S)
        found = [line for line in said.splitlines() if "remote: ciapp: warning" in line]
        self.assertEqual(len(warnings), len(found), said)
        for words, line in zip(warnings, found, strict=True):
            self.assertIn(words, line)
        return commit

    @contextmanager
    def full(self, disk: SmallDisk) -> Iterator[None]:
        """A block, and some time, in which nothing can be written there."""
        with disk.full():
            yield
            until = time.monotonic() + FULL_S
            while time.monotonic() < until:
                disk.fill()
                time.sleep(0.1)

    def assert_tested_once(self, *commits: str) -> None:
        attempts = assert_one_right_report_each(self, self.ci, commits)
        self.assertEqual([[REPORTED]] * len(commits), [[one.ending for one in each] for each in attempts])
        self.assertIsNone(self.worker.poll())
        assert_nothing_is_left(self.ci)

    def test_full_under_the_spool_the_pusher_is_told_and_the_commit_is_found(self) -> None:
        with self.full(self.spool):
            commit = self.push("not recorded (No space left on device); the dispatcher finds it later")
        self.assert_tested_once(commit, self.push())

    def test_full_under_ledger_or_state_it_costs_no_commit_its_verdict(self) -> None:
        self.assert_tested_once(self.push())
        for disk in (self.ledger, self.state, self.slots):
            with self.subTest(disk.folder.name):
                with self.full(disk):
                    commit = self.push()
                self.assert_tested_once(commit, self.push())

    def test_what_fails_on_a_full_disk_says_nothing_about_the_commit(self) -> None:
        test = self.held_test().replace("import subprocess", "import pathlib\nimport subprocess") + WRITES
        commit = self.ci.push_commit(self.clone, {"tests/test_a.py": test})
        run = self.running(commit)
        with self.full(self.slots):
            self.let_go(run)
            eventually(lambda: self.endings(commit)[0], f"the attempt ends: {self.ci.logs()}")
        self.let_go(self.running(commit, 2))
        report = self.ci.report(commit)
        self.assertEqual((Status.PASSED, 2), (report.status, report.attempt))
        self.assertRegex(self.endings(commit)[0], "slots/0 is full, which may be why tests failed")

    def test_a_report_that_no_disk_takes_arrives_when_there_is_room(self) -> None:
        commit = self.push_held()
        run = self.running(commit)
        with self.full(self.ledger), self.full(self.state):
            self.let_go(run)
            eventually(
                lambda: "cannot be kept on disk" in self.ci.logs(), f"nothing takes it {self.ci.logs()}"
            )
            self.assertEqual(State.RUNNING, self.only_run(commit).state)
        self.assert_tested_once(commit)


class TestWorkerOnAFullDisk(unittest.TestCase):
    def test_a_worker_that_finds_no_room_when_it_starts_ends_and_says_so_by_its_status(self) -> None:
        ledger = new_folder(self) / "ledger.sqlite3"
        ci = Installation(self, database=f"sqlite:///{ledger}")
        disk = SmallDisk(self, ci.folder / "state", 64, 0o711)
        ci.ciapp("status")  # makes the tables
        first = ci.start("worker", "--concurrency=1")
        eventually(lambda: list_workers(ci.database), "a worker has made its folders")
        first.terminate()
        self.assertEqual(0, first.wait(60))
        with disk.full():
            worker = ci.start("worker", "--concurrency=1")
            self.assertEqual(CiError.exit_code, worker.wait(60), ci.logs())
        self.assertRegex(
            ci.logs(), "ciapp: bubblewrap cannot be tried in .*: No space left on device; check its disk\n"
        )
        self.assertNotIn("Traceback", ci.logs())

    def test_what_one_that_has_no_room_holds_is_not_sent_again(self) -> None:
        ci = Installation(self, database=f"sqlite:///{new_folder(self) / 'ledger.sqlite3'}")
        disk = SmallDisk(self, ci.folder / "state" / "slots", 64, 0o711)
        clone = ci.make_repository()
        ci.start_all()
        eventually(lambda: list_workers(ci.database), f"a worker is there: {ci.logs()}")
        with disk.full():
            disk.fill()
            eventually(
                lambda: list_workers(ci.database)[0].hindrance, f"it says that it is full: {ci.logs()}"
            )
            commit = ci.push_commit(clone, {"tests/test_a.py": PASSING})
            eventually(lambda: "run waits for room" in ci.logs(), f"it holds the message: {ci.logs()}")
            until = time.monotonic() + 4 * RESEND_TO_IDLE_AFTER_S
            while time.monotonic() < until:
                [run] = ci.runs(commit)
                self.assertEqual((State.QUEUED, 1), (run.state, run.sends))
                time.sleep(0.2)
        assert_one_right_report_each(self, ci, [commit])


if __name__ == "__main__":
    unittest.main()
