"""Leases, on a real ledger and a clock of the test's own."""

from __future__ import annotations

import contextlib
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from unittest import mock

from sqlalchemy import text

from ciapp.errors import LedgerError
from ciapp.intake import leases
from ciapp.intake.leases import LOOK_COUNTS_S, Leases
from ciapp.results.attempts import list_attempts
from ciapp.results.database import Database
from ciapp.results.report import State, Status
from ciapp.results.runs import Run, beat_run, claim_run, find_runs
from ciapp.settings import Settings
from tests.support.ledgers import add_repository, commit, fresh_postgresql, fresh_sqlite, push


class TestLeases(unittest.TestCase):
    def setUp(self) -> None:
        self.settings = Settings()
        self.database = self.new_database()
        self.database.migrate()
        push(self.database, add_repository(self.database), commit(1))
        self.claim(1)
        self.time_s = 1000.0
        self.leases = self.new_leases()

    def new_database(self) -> Database:
        return fresh_sqlite(self)

    def new_leases(self) -> Leases:
        return Leases(self.settings, self.database, lambda: self.time_s)

    def run_now(self) -> Run:
        [run] = find_runs(self.database, "team", [commit(1).id])
        return run

    def claim(self, attempt: int) -> None:
        self.assertTrue(claim_run(self.database, self.run_now().id, attempt=attempt, worker="w#0"))

    def beat(self) -> None:
        self.assertTrue(beat_run(self.database, self.run_now().id, attempt=1, known=1, done=0, failed=0))

    def watch(self, seconds: float, beat: Callable[[], None] = lambda: None) -> None:
        """Look each second, for so long."""
        for _ in range(round(seconds)):
            self.time_s += 1
            beat()
            self.leases.take_back()

    def test_a_worker_whose_beat_does_not_move_for_a_lease_loses_its_run(self) -> None:
        self.leases.take_back()
        self.watch(self.settings.lease_s - 1)
        self.assertIs(State.RUNNING, self.run_now().state)
        self.watch(1)

        self.assertIs(State.QUEUED, self.run_now().state)
        [attempt] = list_attempts(self.database, self.run_now().id)
        self.assertEqual("worker w#0 was silent for 30 s", attempt.ending)

    def test_a_worker_that_beats_keeps_its_run(self) -> None:
        self.watch(3 * self.settings.lease_s, self.beat)
        self.assertIs(State.RUNNING, self.run_now().state)

    def test_a_dispatcher_that_starts_gives_each_worker_a_whole_lease(self) -> None:
        self.watch(self.settings.lease_s - 1)
        self.leases = self.new_leases()
        self.watch(self.settings.lease_s - 1)
        self.assertIs(State.RUNNING, self.run_now().state)

    def test_a_run_whose_workers_all_fell_silent_ends_as_infra_error(self) -> None:
        for attempt in (1, 2, 3):
            if attempt > 1:
                self.claim(attempt)
            self.watch(self.settings.lease_s + 1)
        self.assertIs(Status.INFRA_ERROR, self.run_now().status)

    def test_a_beat_that_comes_in_between_the_look_and_the_loss_counts(self) -> None:
        self.watch(self.settings.lease_s)
        lose = leases.lose_attempt

        def beaten(*args: object, **options: object) -> bool:
            self.beat()
            return bool(lose(*args, **options))  # type: ignore[arg-type]

        with mock.patch.object(leases, "lose_attempt", beaten), self.assertNoLogs("ciapp", "WARNING"):
            self.watch(1)
        self.assertIs(State.RUNNING, self.run_now().state)

    def test_who_looks_rarely_cannot_tell_silence(self) -> None:
        self.leases.take_back()
        for _ in range(3):
            self.time_s += 10 * self.settings.lease_s
            self.leases.take_back()
        self.assertIs(State.RUNNING, self.run_now().state)
        self.watch(self.settings.lease_s - 3 * LOOK_COUNTS_S)
        self.assertIs(State.QUEUED, self.run_now().state)

    def test_while_nobody_can_write_nobody_is_silent(self) -> None:
        """Not even in the look that waited: a worker may be told of the end of it later than we are."""
        self.watch(self.settings.lease_s)
        with self.locked(0.5):
            self.watch(1)
        self.assertIs(State.RUNNING, self.run_now().state)
        self.beat()
        self.watch(self.settings.lease_s)
        self.assertIs(State.RUNNING, self.run_now().state)
        self.watch(1)
        self.assertIs(State.QUEUED, self.run_now().state)

    def test_a_ledger_that_nobody_can_write_to_for_long_is_away(self) -> None:
        self.watch(self.settings.lease_s)
        with (
            mock.patch.object(leases, "await_writes", side_effect=LedgerError("locked")),
            self.assertRaises(LedgerError),
        ):
            self.watch(1)
        self.leases.forget()
        self.watch(self.settings.lease_s)
        self.assertIs(State.RUNNING, self.run_now().state)

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Nobody can write for so long, which counts as a minute; who wants to has not to give up."""
        is_locked = threading.Event()

        def lock() -> None:
            with self.database.write() as connection:
                if self.database.dialect == "postgresql":
                    connection.execute(text("LOCK TABLE runs IN EXCLUSIVE MODE"))  # readers go on
                is_locked.set()
                time.sleep(seconds)
                self.time_s += 60

        thread = threading.Thread(target=lock)
        thread.start()
        self.assertTrue(is_locked.wait(30))
        yield
        thread.join()


class TestLeasesPostgresql(TestLeases):
    def new_database(self) -> Database:
        return fresh_postgresql(self)


if __name__ == "__main__":
    unittest.main()
