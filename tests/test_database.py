"""Connections to the ledger, kept and never to a file that is not there any more; and what its errors say."""

from __future__ import annotations

import os
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from ciapp.errors import LedgerAwayError, LedgerConflictError, LedgerError
from ciapp.results import database as database_module
from ciapp.results.database import CONFLICTS, Database, outlast_conflicts
from ciapp.results.queue import next_runs, reserve_runs
from tests.support.installation import eventually
from tests.support.ledgers import (
    add_repository,
    commit,
    fresh_postgresql,
    fresh_sqlite,
    push,
    waits_for_a_lock,
)

PUT = "INSERT INTO words VALUES ('after')"


class TestSqliteConnections(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.file = self.folder / "ledger.db"
        self.database = self.make(self.file)

    def make(self, file: Path) -> Database:
        database = Database(f"sqlite:///{file}")
        self.addCleanup(database.close)
        with database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE words (word TEXT)")
        return database

    def words(self, database: Database) -> list[str]:
        with database.read() as connection:
            return list(connection.exec_driver_sql("SELECT word FROM words").scalars())

    def open_files(self) -> list[str]:
        """What this process has open in the ledger's folder."""
        links = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                links.append(str(entry.readlink()))
            except FileNotFoundError:
                continue
        return [link for link in links if link.startswith(str(self.folder))]

    def test_the_next_transaction_finds_the_connection_open(self):
        self.assertIn(str(self.file), self.open_files())

    def test_nothing_is_written_into_a_ledger_that_was_moved_away(self):
        moved = self.folder / "moved.db"
        other = self.make(self.folder / "other.db")
        other.close()
        self.database.now()
        self.file.rename(moved)
        (self.folder / "other.db").rename(self.file)

        with self.database.write() as connection:
            connection.exec_driver_sql(PUT)

        self.assertEqual(["after"], self.words(self.database))
        self.assertNotIn(str(moved), self.open_files())

    def test_to_delete_much_writes_little(self):
        with self.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO words VALUES (zeroblob(8 << 20))")
        self.database.close()  # what was written so far goes from the log into the file
        with self.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM words")

        self.assertLess(Path(f"{self.file}-wal").stat().st_size, 1 << 20)

    def test_a_child_is_forked_without_an_open_connection(self):
        self.database.now()
        self.assertTrue(self.open_files())
        child = os.fork()
        if child == 0:
            os._exit(len(self.open_files()))
        self.assertEqual(0, os.waitpid(child, 0)[1])

        self.assertEqual([], self.words(self.database))


class TestSqliteErrors(unittest.TestCase):
    def test_a_ledger_that_somebody_keeps_locked_is_away(self):
        file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "ledger.db"
        with mock.patch.object(database_module, "BUSY_TIMEOUT_S", 0.05):
            database, other = Database(f"sqlite:///{file}"), Database(f"sqlite:///{file}")
        self.addCleanup(database.close)
        self.addCleanup(other.close)
        with other.write(), self.assertRaises(LedgerAwayError), database.write():
            pass

    def test_what_the_ledger_refuses_is_no_sign_that_it_is_away(self):
        with self.assertRaises(LedgerError) as caught, fresh_sqlite(self).write() as connection:
            connection.exec_driver_sql("SELECT no FROM nothing")
        self.assertIs(LedgerError, type(caught.exception))


class TestPostgresqlErrors(unittest.TestCase):
    def setUp(self):
        self.database = fresh_postgresql(self)

    def kind_of(self, code: str) -> type[Exception]:
        """What becomes of an error that the server tells by this code."""
        raising = f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$"
        with self.assertRaises(LedgerError) as caught, self.database.write() as connection:
            connection.exec_driver_sql(raising)
        return type(caught.exception)

    def test_a_conflict_is_no_sign_that_the_server_is_away(self):
        kinds = {code: self.kind_of(code) for code in ("40P01", "40001", "57P01", "55P03", "23514")}
        conflict, away = LedgerConflictError, LedgerAwayError
        self.assertEqual(
            {"40P01": conflict, "40001": conflict, "57P01": away, "55P03": away, "23514": LedgerError}, kinds
        )

    def test_a_transaction_that_is_ended_for_a_deadlock_begins_anew(self):
        self.database.migrate()
        push(self.database, add_repository(self.database), commit(1), commit(2))
        first, second = due = next_runs(self.database, 2)
        touch = "UPDATE runs SET ref = 'x' WHERE id = "
        with ThreadPoolExecutor() as pool, self.database.write() as connection:
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10min'")  # the other is to notice
            connection.exec_driver_sql(f"{touch}{second.id}")
            reserved = pool.submit(reserve_runs, self.database, due)
            eventually(lambda: waits_for_a_lock(self.database), "it has the first and waits for the second")
            connection.exec_driver_sql(f"{touch}{first.id}")
            connection.commit()

        self.assertEqual(due, reserved.result())


class TestConflicts(unittest.TestCase):
    def test_who_meets_a_conflict_each_time_is_told_so_at_last(self):
        transaction = mock.Mock(side_effect=LedgerConflictError("deadlock detected"), __name__="claim")
        with self.assertRaises(LedgerConflictError):
            outlast_conflicts(transaction)(7, by="w")
        self.assertEqual([mock.call(7, by="w")] * (1 + CONFLICTS), transaction.call_args_list)


if __name__ == "__main__":
    unittest.main()
