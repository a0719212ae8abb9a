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
from ciapp.results.schema import HEAD_REVISION
from ciapp.results.workers import list_workers
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, eventually
from tests.support.ledgers import fresh_postgresql_url
from tests.support.proxy import SlammingProxy
from tests.support.servers import PrivatePostgreSQL

LOCKED_S = 4.0

pytestmark = pytest.mark.slow


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
            pushed = self.push()
            self.let_go(run)
            time.sleep(LOCKED_S)  # the fault lasts so long
            self.assertEqual(run.beat, self.only_run(held).beat)
            other.execute("COMMIT")
        other.close()
        self.assert_tested_once([held, *pushed])


class TestPostgresql(DatabaseTest):
    def new_installation(self, *settings: str) -> Installation:
        self.server = PrivatePostgreSQL(self)
        return Installation(self, *settings, database=self.server.url)

    def test_a_backend_killed_in_its_transaction_takes_only_that_along(self) -> None:
        worker = self.start_worker()
        held = self.push_held()
        run = self.running(held)
        with self.assertRaises(LedgerError), self.ci.database.write() as connection:
            backend = connection.scalar(text("SELECT pg_backend_pid()"))
            connection.execute(text("DELETE FROM attempts"))
            os.kill(backend, signal.SIGKILL)  # PostgreSQL ends all its connections, and recovers
            connection.execute(text("SELECT 1"))
        eventually(self.server.is_ready, "it has recovered")
        pushed = self.push()
        self.let_go(run)
        self.assert_tested_once([held, *pushed])
        self.assertIsNone(worker.poll())

    def test_a_migration_that_locks_its_tables_keeps_a_run_waiting_and_no_more(self) -> None:
        self.start_worker()
        held = self.push_held()
        run = self.running(held)
        with self.ci.database.write() as connection:
            connection.execute(text("ALTER TABLE runs ADD COLUMN later integer"))
            pushed = self.push()
            self.let_go(run)
            time.sleep(LOCKED_S)
        self.assert_tested_once([held, *pushed])


class TestLostAnswers(DatabaseTest):
    """The server has committed, and the connection breaks before it can say so."""

    word = b""

    def new_installation(self, *settings: str) -> Installation:
        server = PrivatePostgreSQL(self)
        self.direct = Installation(self, *settings, database=server.url)
        self.port = server.port
        return self.direct

    def start_worker_behind(self, word: bytes, until: bytes = b"COMMIT") -> SlammingProxy:
        """A worker whose connection is cut once, after the transaction that has this word."""
        proxy = SlammingProxy(self, self.port, word, until)
        url = self.ci.config.read_text().split('database_url = "')[1].split('"')[0]
        variables = {"CIAPP_DATABASE_URL": url.replace(str(self.port), str(proxy.port))}
        self.ci.start("worker", "--concurrency=1", **variables)
        return proxy

    def test_after_a_claim_the_worker_learns_that_it_holds_the_run(self) -> None:
        proxy = self.start_worker_behind(b"INSERT INTO attempts")
        pushed = self.push()
        self.assert_tested_once(pushed)
        self.assertTrue(proxy.has_slammed.is_set())

    def test_after_a_report_the_worker_sends_it_again_and_it_counts_once(self) -> None:
        proxy = self.start_worker_behind(b"INSERT INTO reports")
        pushed = self.push()
        self.assert_tested_once(pushed)
        self.assertTrue(proxy.has_slammed.is_set())

    def test_a_question_between_claim_and_tests_is_asked_again(self) -> None:
        proxy = self.start_worker_behind(b"SELECT reports.document", until=b"")
        [parent] = self.push()
        self.ci.report(parent)
        self.assertFalse(proxy.has_slammed.is_set())
        pushed = self.push()  # the worker asks which tests its parent had
        self.assert_tested_once([parent, *pushed])
        self.assertTrue(proxy.has_slammed.is_set())


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
