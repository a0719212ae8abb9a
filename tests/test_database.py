"""Connections to the ledger: kept between transactions, and never to a file that is not there any more."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from ciapp.results.database import Database

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


if __name__ == "__main__":
    unittest.main()
