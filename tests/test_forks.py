"""Processes that fork while another of their threads uses the ledger, as a Celery worker does."""

from __future__ import annotations

import os
import threading
import unittest

from ciapp.results.database import Database
from ciapp.results.workers import list_workers
from tests.support.ledgers import fresh_postgresql, fresh_sqlite

FORKS = 60
BREATH_S = 0.001  #: between two writes of the thread, or SQLite lets nobody else in for long
COUNT = "UPDATE counters SET value = value + 1"


class Forks:
    """Mixed into a test case per database."""

    def fresh(self) -> Database:
        raise NotImplementedError

    def test_no_write_is_lost_and_no_child_fails(self):
        database = self.fresh()
        database.migrate()
        with database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE counters (value INTEGER)")
            connection.exec_driver_sql("INSERT INTO counters VALUES (0)")
        ended, written = threading.Event(), []

        def beat() -> None:
            while not ended.wait(BREATH_S):
                with database.write() as connection:
                    connection.exec_driver_sql(COUNT)
                written.append(1)

        thread = threading.Thread(target=beat)
        thread.start()
        failed = 0
        try:
            for _ in range(FORKS):
                child = os.fork()
                if child == 0:
                    self.write_and_exit(database)
                failed += os.waitpid(child, 0)[1] != 0
        finally:
            ended.set()
            thread.join()
        self.assertEqual(0, failed)
        with database.read() as connection:
            value = connection.exec_driver_sql("SELECT value FROM counters").scalar()
        self.assertEqual(len(written) + 3 * FORKS, value)
        self.assertEqual([], list_workers(database))

    def write_and_exit(self, database: Database) -> None:
        """What a pool process does: write with what it inherited, then with a ledger of its own."""
        try:
            url = database.engine.url.render_as_string(hide_password=False)
            for ledger in (database, Database(url), database):
                with ledger.write() as connection:
                    connection.exec_driver_sql(COUNT)
            os._exit(0)
        finally:
            os._exit(1)


class TestSqlite(Forks, unittest.TestCase):
    def fresh(self) -> Database:
        return fresh_sqlite(self)


class TestPostgresql(Forks, unittest.TestCase):
    def fresh(self) -> Database:
        return fresh_postgresql(self)


if __name__ == "__main__":
    unittest.main()
