"""Which queues a worker consumes, and what it announces, by its Pythons and its options."""

from __future__ import annotations

import os
import subprocess
import unittest
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest import mock

from ciapp.errors import LedgerAwayError, LedgerError
from ciapp.results import outbox
from ciapp.results.database import Database
from ciapp.results.outbox import Outbox
from ciapp.results.report import State, Status
from ciapp.results.runs import Run, claim_run, find_runs
from ciapp.results.store import make_report
from ciapp.results.workers import list_workers
from ciapp.settings import Settings
from ciapp.testing import room
from ciapp.testing.interpreters import find_interpreters, minor_version
from tests.support.git_repositories import new_folder
from tests.support.installation import eventually
from tests.support.ledgers import add_repository, commit, findings, push
from tests.support.samples import find_pythons
from tests.support.services import need

with mock.patch.dict(os.environ):
    # Settings are read when these are imported, from whatever this machine has.
    for name in [name for name in os.environ if name.startswith("CIAPP_")]:
        del os.environ[name]
    from ciapp import worker
    from ciapp.celery import make_app


class TestQueues(unittest.TestCase):
    def setUp(self) -> None:
        pythons = find_pythons()[-2:]
        self.versions = [minor_version(python.version) for python in pythons]
        self.ours = [f"ciapp.python{version}" for version in self.versions]
        state = str(new_folder(self))
        self.settings = Settings(state_dir=state, pythons=[str(python.path) for python in pythons])
        patch = mock.patch.object(worker, "settings", self.settings)
        patch.start()
        self.addCleanup(patch.stop)

    def consumed(self, include: str = "", exclude: str = "", settings: Settings | None = None) -> list[str]:
        """The queues of a worker that was given -Q and -X."""
        app = make_app(settings or self.settings)
        app.amqp.queues.select(include.split(",") if include else None)
        app.amqp.queues.deselect(exclude.split(",") if exclude else None)
        worker.choose_queues(instance=SimpleNamespace(app=app))
        self.queues = app.amqp.queues.consume_from
        return list(self.queues)

    def need_two_pythons(self) -> None:
        if len(self.versions) < 2:
            need("another Python", f"this machine has none but {self.versions[0]}")

    def test_a_worker_consumes_the_default_queue_and_one_for_each_of_its_pythons(self) -> None:
        self.assertEqual(["ciapp", *self.ours], self.consumed())
        self.assertEqual(set(self.versions), set(find_interpreters(self.settings).interpreters))

    def test_of_the_queues_that_are_named_it_consumes_those_that_it_can_serve(self) -> None:
        self.need_two_pythons()
        self.assertEqual(self.ours[1:], self.consumed(self.ours[1]))
        with self.assertLogs("ciapp", "ERROR") as logged:
            self.assertEqual(self.ours[:1], self.consumed(f"{self.ours[0]},ciapp.python3.99"))
        self.assertEqual(["ciapp.python3.99"], logged.records[0].queues)

    def test_a_queue_that_is_excluded_is_not_consumed(self) -> None:
        self.assertEqual(self.ours, self.consumed(exclude="ciapp"))

    def test_on_rabbitmq_each_is_a_quorum_queue_however_it_was_named(self) -> None:
        settings = Settings(broker_url="amqp://nowhere", pythons=self.settings.pythons)
        with mock.patch.object(worker, "settings", settings):
            for include in ("", self.ours[0]):
                self.consumed(include, settings=settings)
                self.assertIn(self.ours[0], self.queues)
                for queue in self.queues.values():
                    self.assertEqual("quorum", queue.queue_arguments["x-queue-type"])

    def test_what_is_consumed_is_announced(self) -> None:
        self.need_two_pythons()
        for include, environments in (
            ("", ("default", *(f"python{version}" for version in self.versions))),
            (self.ours[1], (f"python{self.versions[1]}",)),
        ):
            self.consumed(include)
            app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=self.queues)))
            sender = SimpleNamespace(app=app, hostname="w@here", controller=SimpleNamespace(concurrency=2))
            with mock.patch.object(worker, "Attendance") as attendance:
                worker.begin_attendance(sender)
            worker._attendance.clear()
            attendance.assert_called_once_with("w@here", 2, environments)


class AttendanceTest(unittest.TestCase):
    """The thread that a worker has beside its tasks; on a SQLite ledger."""

    def setUp(self) -> None:
        self.settings = Settings(state_dir=str(new_folder(self)), attempts=1)
        for name, value in (("settings", self.settings), ("BEAT_EVERY_S", 0.05)):
            self.enterContext(mock.patch.object(worker, name, value))
        self.database = Database(self.settings.database)
        self.addCleanup(self.database.close)
        self.database.migrate()
        self.attendance = worker.Attendance("w@here", 1, ("default",))


class TestAttendance(AttendanceTest):
    def announced(self) -> str:
        """What the ledger has on why the worker takes no run."""
        self.attendance._be_seen()
        [row] = list_workers(self.database)
        return row.hindrance

    def test_a_worker_that_has_no_room_says_so_for_as_long_as_it_has_none(self) -> None:
        self.assertEqual("", self.announced())
        with mock.patch.object(room, "NEEDED_MIB", 1 << 40):
            self.assertRegex(self.announced(), "^the disk of .* is full$")
        self.assertEqual("", self.announced())

    def test_whatever_one_of_its_duties_meets_it_goes_on_with_all(self) -> None:
        trouble = OSError(5, "Input/output error")
        hung = subprocess.TimeoutExpired("rm", 600)
        self.addCleanup(self.attendance.leave)
        with (
            mock.patch.object(self.attendance, "lookout", environments=mock.Mock(side_effect=trouble)),
            mock.patch.object(self.attendance._outbox, "deliver_waiting", side_effect=trouble) as deliver,
            mock.patch.object(worker, "sweep_folders", side_effect=hung) as sweep,
            mock.patch.object(worker, "worker_is_here", side_effect=trouble) as seen,
            self.assertLogs("ciapp", "ERROR") as logged,
        ):
            self.attendance.start()
            eventually(lambda: min(one.call_count for one in (deliver, sweep, seen)) > 2, "it goes on")
            self.assertTrue(self.attendance.is_alive())
        self.assertIn("Input/output error", str(logged.output))
        self.assertIn("TimeoutExpired", str(logged.output))


class TestLeaving(AttendanceTest):
    """Its runs when a worker is stopped, whose database was away when their tests ended."""

    def setUp(self) -> None:
        super().setUp()
        self.outbox = Outbox(self.settings.state_path / "outbox", self.database)
        repository = add_repository(self.database)
        push(self.database, repository, *map(commit, (1, 2, 3)))
        for number in (1, 2, 3):
            claim_run(self.database, self.run_of(number).id, attempt=1, worker="w@here#0")

    def run_of(self, number: int) -> Run:
        [run] = find_runs(self.database, "team", [commit(number).id])
        return run

    def keep_report(self, number: int) -> None:
        """A report that waits on this disk."""
        run = self.run_of(number)
        away = mock.patch.object(outbox, "save_report", side_effect=LedgerAwayError("away"))
        with away, mock.patch.object(outbox, "INSIST_S", 0):
            self.outbox.deliver(run.id, make_report(run, findings(), finished_at=datetime.now(UTC)))

    def test_a_report_that_waits_is_delivered_and_other_runs_are_given_back(self) -> None:
        self.keep_report(1)
        with mock.patch.object(self.attendance._outbox, "deliver_waiting"):  # the database is away
            self.attendance.start()
            eventually(lambda: list_workers(self.database), "it is seen")
            self.attendance._stopped.set()
            self.attendance.join()
        self.attendance.leave()

        self.assertIs(Status.PASSED, self.run_of(1).status)
        for number in (2, 3):
            run = self.run_of(number)
            self.assertEqual((State.QUEUED, "worker w@here was stopped"), (run.state, run.reason))
        self.assertEqual([], list_workers(self.database))

    def test_a_run_whose_report_cannot_be_delivered_yet_is_not_given_back(self) -> None:
        self.keep_report(2)
        with mock.patch.object(outbox, "save_report", side_effect=LedgerError("deadlock detected")):
            self.attendance.start()
            self.attendance.leave()
        self.assertEqual(
            [State.QUEUED, State.RUNNING, State.QUEUED], [self.run_of(number).state for number in (1, 2, 3)]
        )

        self.assertEqual(0, self.outbox.deliver_waiting())  # by whoever is next here
        self.assertEqual((Status.PASSED, 1), (self.run_of(2).status, self.run_of(2).attempt))


if __name__ == "__main__":
    unittest.main()
