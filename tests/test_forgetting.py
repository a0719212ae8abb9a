"""ciapp/results/forgetting.py, and `ciapp forget` as a user calls it."""

from __future__ import annotations

import os
import unittest
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner, Result
from sqlalchemy import func, select, update

from ciapp.cli import cli
from ciapp.errors import LedgerError, UsageError
from ciapp.intake.hook import remove_hook
from ciapp.intake.register import install_and_register
from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.forgetting import forget
from ciapp.results.migrations import upgrade
from ciapp.results.pushes import KnownRepository
from ciapp.results.runs import Run, beat_run, claim_run, find_runs
from ciapp.results.store import make_report, save_report
from ciapp.settings import load_settings
from tests.support.git_repositories import new_bare_repository, new_folder
from tests.support.ledgers import add_repository, commit, findings, fresh_postgresql, fresh_sqlite, push

KEPT = {"workers", "restores"}


def rows(database: Database) -> dict[str, int]:
    """How many rows each table has."""
    with database.read() as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(table)) or 0
            for name, table in schema.metadata.tables.items()
            if name not in KEPT
        }


def contents(database: Database) -> dict[str, list[Any]]:
    """Every row of each table."""
    with database.read() as connection:
        return {
            name: connection.execute(select(table).order_by(*table.primary_key.columns)).all()
            for name, table in schema.metadata.tables.items()
        }


def claim(database: Database, repo: str, number: int) -> Run:
    [run] = find_runs(database, repo, [commit(number).id])
    claimed = claim_run(database, run.id, attempt=1, worker="w#0")
    assert claimed is not None
    return claimed


class ForgettingRules:
    """Mixed into a test case per database."""

    database: Database

    def fill(self, repo: str) -> KnownRepository:
        """A repository with a run that has finished, one that is going on, and many that wait."""
        repository = add_repository(self.database, repo)
        push(self.database, repository, *map(commit, range(40)))
        run = claim(self.database, repo, 1)
        save_report(self.database, run.id, make_report(run, findings(), finished_at=datetime.now(UTC)))
        return repository

    def test_nothing_of_a_repository_is_left_and_all_of_the_others(self):
        self.fill("other")
        before = rows(self.database)
        self.assertEqual(set(), {name for name, number in before.items() if not number})
        team = self.fill("team")

        done = forget(self.database, team)

        self.assertEqual((40, 40), (done.commits, done.runs))
        self.assertEqual(before, rows(self.database))

    def test_a_worker_that_still_tests_a_run_of_it_is_refused(self):
        team = self.fill("team")
        run = claim(self.database, "team", 2)
        forget(self.database, team)
        self.fill("next")
        self.assertFalse(beat_run(self.database, run.id, attempt=1, known=1, done=1, failed=0))
        report = make_report(run, findings(), finished_at=datetime.now(UTC))
        before = rows(self.database)
        self.assertFalse(save_report(self.database, run.id, report))
        self.assertEqual(before, rows(self.database))

    def test_the_number_of_a_run_that_is_gone_is_not_given_out_again(self):
        self.fill("other")
        team = self.fill("team")
        gone = {run.id for run in find_runs(self.database, "team", [commit(each).id for each in range(40)])}
        forget(self.database, team)
        self.fill("next")
        new = {run.id for run in find_runs(self.database, "next", [commit(each).id for each in range(40)])}
        self.assertGreater(min(new), max(gone))


class TestSqlite(ForgettingRules, unittest.TestCase):
    def setUp(self):
        self.database = fresh_sqlite(self)
        self.database.migrate()


class TestMigration(unittest.TestCase):
    def test_a_row_that_would_refer_to_nothing_is_refused_and_nothing_changed(self):
        database = fresh_sqlite(self)
        database.migrate()
        rules = ForgettingRules()
        rules.database = database
        claim(database, rules.fill("team").name, 2)
        before = rows(database)
        reason = "a row of attempts would refer to one of runs"
        with self.assertRaisesRegex(LedgerError, reason), database.rebuild() as connection:
            connection.execute(schema.runs.delete())
        self.assertEqual(before, rows(database))

    def test_a_ledger_of_version_5_keeps_every_row_and_gives_no_number_out_again(self):
        database = fresh_sqlite(self)
        with database.rebuild() as connection:
            upgrade(connection, database.address, "0005")
        later = {"workers": "hindrance TEXT", "runs": "absences INTEGER"}  # columns that we cannot do without
        with database.rebuild() as connection:
            for table, column in later.items():
                connection.exec_driver_sql(f"ALTER TABLE {table} ADD {column}")
        rules = ForgettingRules()
        rules.database = database
        rules.fill("other")
        team = rules.fill("team")
        claim(database, "team", 2)
        before = contents(database)
        with database.rebuild() as connection:
            for table, column in later.items():
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP {column.split()[0]}")
        self.assertTrue(before["attempts"] and before["reports"])

        database.migrate()

        self.assertEqual(before, contents(database))
        last = max(row.id for row in before["runs"])
        forget(database, team)  # as before, what belongs to a run goes with it
        self.assertEqual(rows(database)["runs"], 40)
        self.assertEqual(rows(database)["reports"], 1)
        rules.fill("next")
        with database.read() as connection:
            self.assertEqual(40, connection.scalar(select(func.count()).where(schema.runs.c.id > last)))


class TestPostgresql(ForgettingRules, unittest.TestCase):
    def setUp(self):
        self.database = fresh_postgresql(self)
        self.database.migrate()


class TestCommand(unittest.TestCase):
    def setUp(self):
        self.folder = new_folder(self)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CIAPP_")}
        ours = {"CIAPP_STATE_DIR": str(self.folder), "HOME": str(self.folder), "CIAPP_HOST": "here"}
        patch = mock.patch.dict(os.environ, kept | ours, clear=True)
        patch.start()
        self.addCleanup(patch.stop)
        self.database = Database(load_settings().database)
        self.database.migrate()
        self.bare = new_bare_repository(self)
        install_and_register(load_settings(), self.database, self.bare, name="team")

    def call(self, *words: str, typed: str = "") -> Result:
        return CliRunner().invoke(cli, ["forget", "team", *words], input=typed)

    def known(self) -> bool:
        return bool(rows(self.database)["repositories"])

    def test_a_repository_that_has_its_hook_is_kept(self):
        refused = self.call("--yes")
        self.assertIsInstance(refused.exception, UsageError)
        said = f"team still has its hook; run `ciapp hook remove {self.bare}` first"
        self.assertEqual(said, str(refused.exception))
        self.assertTrue(self.known())

    def test_a_second_name_of_a_repository_whose_hook_records_under_the_first_can_go(self):
        # As ciapp once registered it when the hook was installed again with --name.
        with self.database.write() as connection:
            connection.execute(update(schema.repositories).values(name="second"))

        self.assertIn("forgot second", CliRunner().invoke(cli, ["forget", "second", "--yes"]).output)

    def test_it_asks_first_and_deletes_the_mirror_as_well(self):
        remove_hook(self.bare)
        mirror = self.folder / "mirrors" / "team.git"
        mirror.mkdir(parents=True)
        self.assertEqual(1, self.call(typed="n\n").exit_code)
        self.assertTrue(self.known() and mirror.is_dir())

        done = self.call(typed="y\n")

        self.assertIn(f"Delete the runs and reports of team ({self.bare})?", done.output)
        self.assertIn("forgot team: 0 commits, 0 runs\ndeleted its mirror on this host\n", done.output)
        self.assertFalse(self.known() or mirror.exists())
        self.assertTrue(Path(self.bare, "HEAD").exists())

    def test_of_a_repository_elsewhere_it_says_what_is_to_be_done_there(self):
        with mock.patch.dict(os.environ, CIAPP_HOST="there"):
            done = self.call(typed="y\n")
        self.assertIn(f"({self.bare} on here, whose hook must be removed there)", done.output)
        self.assertFalse(self.known())


if __name__ == "__main__":
    unittest.main()
