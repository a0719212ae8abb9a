"""Databases that are away, die, lock, drop an answer or are migrated: the ledger keeps its word."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import unittest

import pytest
from sqlalchemy import text

from ciapp.errors import LedgerError
from ciapp.results.attempts import REPORTED
from ciapp.results.database import Database
from ciapp.results.migrations import upgrade
from ciapp.results.runs import Run
from ciapp.results.schema import HEAD_REVISION
from ciapp.results.workers import list_workers
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, eventually
from tests.support.ledgers import fresh_postgresql_url
from tests.support.proxy import SlammingProxy
from tests.support.servers import PrivatePostgreSQL

LOCKED_S = 2.5  #: two beats and more


class DatabaseTest(HeldRuns):
    """No fault here costs an attempt."""

    lease_s = 30.0

    def push(self, number: int = 1) -> list[str]:
        """Push commits one by one; returns them."""
        return [
            self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, str(each)) for each in range(number)
        ]

    def assert_tested_once(self, commits: list[str]) -> None:
        attempts = assert_one_right_report_each(self, self.ci, commits)
        self.assertEqual([[REPORTED]] * len(commits), [[one.ending for one in each] for each in attempts])
        assert_nothing_is_left(self.ci)


class TestSqlite(DatabaseTest):
    def test_locked_for_longer_than_a_beat_it_costs_nobody_a_run(self) -> None:
        self.start_worker()
        held = self.push_held()
        run = self.running(held)
        with sqlite3.connect(self.ci.folder / "state" / "ledger.sqlite3", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            run = self.only_run(held)
            pushed = self.push()
            self.let_go(run)
            time.sleep(LOCKED_S)  # the fault lasts so long
            self.assertEqual(run.beat, self.only_run(held).beat)
            other.execute("COMMIT")
        other.close()
        self.assert_tested_once([held, *pushed])


class TestLockedForLongerThanALease(DatabaseTest):
    """Nobody can write, though all can read."""

    lease_s = 3.0

    def test_a_worker_that_could_not_beat_keeps_its_run(self) -> None:
        self.start_worker()
        held = self.push_held()
        run = self.running(held)
        for _ in range(2):
            with self.ci.database.write() as connection:
                if self.ci.database.dialect == "postgresql":
                    connection.execute(text("LOCK TABLE runs IN EXCLUSIVE MODE"))
                beat = self.only_run(held).beat
                time.sleep(self.lease_s + 2)  # the fault lasts so long
            eventually(lambda beat=beat: self.only_run(held).beat > beat + 1, "the worker beats")
        self.let_go(run)
        self.assert_tested_once([held])


@pytest.mark.slow
class TestLockedForLongerThanALeasePostgresql(TestLockedForLongerThanALease):
    def new_installation(self, *settings: str) -> Installation:
        return Installation(self, *settings, database=fresh_postgresql_url(self))


class TestPostgresql(DatabaseTest):
    def new_installation(self, *settings: str) -> Installation:
        self.server = PrivatePostgreSQL(self)
        return Installation(self, *settings, database=self.server.url)

    def test_neither_a_migration_that_locks_its_tables_nor_a_backend_that_is_killed_costs_a_run(self) -> None:
        worker = self.start_worker()
        pushed = []
        for fault in (self.lock_tables, self.kill_backend):
            held = self.push_held()
            run = self.running(held)
            pushed += [held, *fault(run)]
        self.assert_tested_once(pushed)
        self.assertIsNone(worker.poll())

    def lock_tables(self, run: Run) -> list[str]:
        """As a migration does, while a run finishes and a push comes."""
        with self.ci.database.write() as connection:
            connection.execute(text("ALTER TABLE runs ADD COLUMN later integer"))
            pushed = self.push()
            self.let_go(run)
            time.sleep(LOCKED_S)  # the fault lasts so long
        return pushed

    def kill_backend(self, run: Run) -> list[str]:
        """kill -9 in a transaction: PostgreSQL ends all its connections, and recovers."""
        with self.assertRaises(LedgerError), self.ci.database.write() as connection:
            backend = connection.scalar(text("SELECT pg_backend_pid()"))
            connection.execute(text("DELETE FROM attempts"))
            os.kill(backend, signal.SIGKILL)
            connection.execute(text("SELECT 1"))
        eventually(self.server.is_ready, "it has recovered")
        pushed = self.push()
        self.let_go(run)
        return pushed


class TestLostAnswers(DatabaseTest):
    """The server has committed, and the connection breaks before it can say so."""

    word = b""

    def new_installation(self, *settings: str) -> Installation:
        server = PrivatePostgreSQL(self)
        self.direct = Installation(self, *settings, database=server.url)
        self.port = server.port
        return self.direct

    def start_worker_behind(self, proxy: SlammingProxy) -> None:
        url = self.ci.config.read_text().split('database_url = "')[1].split('"')[0]
        variables = {"CIAPP_DATABASE_URL": url.replace(str(self.port), str(proxy.port))}
        self.ci.start("worker", "--concurrency=1", **variables)

    def push_and_slam(self, proxy: SlammingProxy, word: bytes, until: bytes = b"COMMIT") -> list[str]:
        """Push; the worker's connection is cut once, after the transaction that has this word."""
        proxy.arm(word, until)
        pushed = self.push()
        self.ci.report(pushed[0])
        self.assertTrue(proxy.has_slammed.is_set(), word)
        return pushed

    def test_a_worker_asks_again_what_became_of_its_claim_its_question_and_its_report(self) -> None:
        proxy = SlammingProxy(self, self.port)
        self.start_worker_behind(proxy)
        pushed = self.push_and_slam(proxy, b"INSERT INTO attempts")
        # Before it tests, it asks which tests the commit's parent had.
        pushed += self.push_and_slam(proxy, b"SELECT reports.document", until=b"")
        pushed += self.push_and_slam(proxy, b"INSERT INTO reports")
        self.assert_tested_once(pushed)


class TestMigration(unittest.TestCase):
    def test_services_that_start_at_once_on_an_older_ledger_all_find_it_migrated(self) -> None:
        url = fresh_postgresql_url(self)
        database = Database(url)
        self.addCleanup(database.close)
        with database.write() as connection:
            upgrade(connection, database.address, "0001")
        ci = Installation(self, database=url.replace("postgresql+psycopg://", "postgresql://"))
        services = [ci.start("dispatcher"), ci.start("worker", "--concurrency=1", "--hostname=a@%h", log="a")]
        services.append(ci.start("worker", "--concurrency=1", "--hostname=b@%h", log="b"))
        eventually(lambda: database.revision() == HEAD_REVISION, "it is migrated")
        eventually(lambda: len(list_workers(database)) == 2, f"the workers are there: {ci.logs()}")
        clone = ci.make_repository()
        assert_one_right_report_each(self, ci, [ci.push_commit(clone, {"tests/test_a.py": PASSING})])
        self.assertEqual([None] * 3, [service.poll() for service in services])


if __name__ == "__main__":
    unittest.main()
