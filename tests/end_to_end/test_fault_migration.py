"""A ledger that a newer ciapp migrates while a worker of an older one has a run in hand."""

from __future__ import annotations

import unittest

from sqlalchemy import text

from ciapp.results.report import State
from ciapp.results.schema import HEAD_REVISION
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import CODE, PASSING, Installation, eventually
from tests.support.ledgers import fresh_postgresql_url
from tests.support.older import older_code


class TestSqlite(HeldRuns):
    def setUp(self) -> None:
        self.older = older_code(self)
        super().setUp()

    def new_installation(self, *settings: str) -> Installation:
        settings = tuple(line for line in settings if "reuse" not in line)  # newer than that
        ci = Installation(self, *settings, database=self.new_database())
        ci.environment["PYTHONPATH"] = str(self.older)
        return ci

    def new_database(self) -> str:
        return ""

    def update(self) -> None:
        """From here on, what is started is of this version."""
        self.ci.environment["PYTHONPATH"] = str(CODE)

    def test_its_run_ends_with_one_report(self) -> None:
        older = self.start_worker("older")
        held = self.push_held()
        eventually(self.held_processes, f"its test is held: {self.ci.logs()}")
        with self.ci.database.read() as connection:
            state, worker = connection.execute(text("SELECT state, worker FROM runs")).one()
        self.assertEqual(State.RUNNING, state)
        self.assertNotEqual(HEAD_REVISION, self.ci.database.revision())

        self.update()
        self.ci.processes[0].terminate()
        self.ci.processes[0].wait()
        self.ci.start("dispatcher", log="newer dispatcher")
        eventually(lambda: self.ci.database.revision() == HEAD_REVISION, f"it migrates: {self.ci.logs()}")
        self.let_go(self.running(held))
        [attempts] = assert_one_right_report_each(self, self.ci, [held])
        self.assertEqual([worker], [one.worker for one in attempts])

        older.terminate()
        self.assertEqual(0, older.wait(60))
        self.start_worker("newer")
        pushed = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})
        assert_one_right_report_each(self, self.ci, [pushed])
        assert_nothing_is_left(self.ci)


class TestPostgresql(TestSqlite):
    def new_database(self) -> str:
        return fresh_postgresql_url(self).replace("postgresql+psycopg://", "postgresql://")


if __name__ == "__main__":
    unittest.main()
