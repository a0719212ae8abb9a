"""A ledger that went through a backup, on SQLite and on PostgreSQL and from one to the other."""

from __future__ import annotations

import gzip
import tempfile
import unittest
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import select

from ciapp.errors import LedgerError, UsageError
from ciapp.progress import runs_line
from ciapp.results import backup as backup_module
from ciapp.results import restores, schema
from ciapp.results.attempts import list_attempts
from ciapp.results.backup import TABLES, back_up, open_backup, restore
from ciapp.results.database import Database
from ciapp.results.pushes import KnownRepository, find_repository, seen_refs
from ciapp.results.queue import next_runs, reserve_runs
from ciapp.results.report import Report, State, Status
from ciapp.results.reruns import rerun, rerun_tested
from ciapp.results.restores import PASSED_OVER, RESTORED
from ciapp.results.runs import Run, beat_run, cancel_run, claim_run, find_runs, lose_attempt
from ciapp.results.store import load_report, make_report, report_on, save_report
from tests.support.ledgers import add_repository, commit, findings, fresh_postgresql, fresh_sqlite, push


def contents(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that a backup holds, but for what a restore adds."""
    with database.read() as connection:
        return {
            name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for name, table in TABLES.items()
            if name != "restores"
        }


class BackupRules:
    """Mixed into a test case per pair of databases: `database` is backed up, `target` restored into."""

    database: Database
    target: Database

    def setUp(self):
        self.database, self.target = self.fresh(), self.fresh_target()
        self.database.migrate()
        self.target.migrate()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "ledger.backup"

    def fresh(self) -> Database:
        return fresh_sqlite(self)

    def fresh_target(self) -> Database:
        return fresh_sqlite(self)

    def run_of(self, number: int, database: Database | None = None) -> Run:
        [run] = find_runs(database or self.database, "team", [commit(number).id])
        return run

    def claim(self, number: int, attempt: int, database: Database | None = None) -> Run:
        database = database or self.database
        run = claim_run(database, self.run_of(number, database).id, attempt=attempt, worker="w#0")
        assert run is not None
        return run

    def claim_next(self, number: int) -> Run:
        """The next attempt, in the restored ledger."""
        return self.claim(number, self.run_of(number, self.target).attempt + 1, self.target)

    def finish(self, number: int) -> Run:
        run = self.claim(number, 1)
        self.assertTrue(save_report(self.database, run.id, self.report(run, Status.FAILED)))
        return run

    def report(self, run: Run, status: Status = Status.PASSED) -> Report:
        return make_report(run, findings(status), finished_at=datetime.now(UTC))

    def filled(self) -> KnownRepository:
        """Runs 1: finished, 2: cancelled, with odd text."""
        repository = add_repository(self.database)
        push(
            self.database, repository, commit(1, subject="\udcff 'é' \0"), commit(2), ref="refs/heads/\udce9"
        )
        self.finish(1)
        cancel_run(self.database, self.run_of(2).id)
        return repository

    def test_every_row_comes_back(self):
        self.filled()
        made = back_up(self.database, self.file)
        restored = restore(self.target, self.file)

        self.assertEqual(contents(self.database), contents(self.target))
        self.assertEqual((made.rows, made.made_at), (restored.rows, restored.made_at))
        self.assertEqual((2, 1), (made.rows["runs"], made.rows["reports"]))
        self.assertEqual(0, restored.requeued)
        self.assertEqual(
            load_report(self.database, self.run_of(1).id), load_report(self.target, self.run_of(1).id)
        )

    def test_drill_unfinished_runs_are_queued_again_and_what_comes_late_is_stale(self):
        self.filled()
        repository = find_repository(self.database, "team")
        push(self.database, repository, commit(3), commit(4))
        reserve_runs(self.database, next_runs(self.database, 9))
        self.claim(3, 1)
        back_up(self.database, self.file)
        # Forgotten: attempt 1 was lost, and attempt 2 still runs while the ledger is restored.
        forgotten = self.run_of(3)

        self.assertEqual(2, restore(self.target, self.file).requeued)

        self.assertFalse(beat_run(self.target, forgotten.id, attempt=1, known=1, done=0, failed=0))
        self.assertFalse(save_report(self.target, forgotten.id, self.report(forgotten)))
        self.assertEqual((State.QUEUED, 0), (self.run_of(3, self.target).state, self.run_of(3).tries - 1))
        self.assertEqual([RESTORED], [one.ending for one in list_attempts(self.target, forgotten.id)])
        due = next_runs(self.target, 9)
        self.assertEqual({3, 4}, {int(run.commit, 16) for run in due})
        self.assertEqual(2, len(reserve_runs(self.target, due)))
        self.assertIsNone(claim_run(self.target, forgotten.id, attempt=2, worker="w#1"))
        again = self.claim_next(3)
        self.assertGreater(again.attempt, 1 + PASSED_OVER)
        self.assertTrue(save_report(self.target, again.id, self.report(again)))
        self.assertEqual(Status.PASSED, self.run_of(3, self.target).status)

    def test_a_forgotten_runs_report_says_nothing_of_the_commit_that_has_its_number_now(self):
        self.filled()
        back_up(self.database, self.file)
        push(self.database, find_repository(self.database, "team"), commit(3))
        forgotten = self.claim(3, 1)
        restore(self.target, self.file)
        push(self.target, find_repository(self.target, "team"), commit(4))
        now = self.claim_next(4)
        self.assertEqual(forgotten.id, now.id)

        self.assertFalse(save_report(self.target, now.id, self.report(forgotten)))
        self.assertEqual(State.RUNNING, self.run_of(4, self.target).state)

    def assert_only_the_present_counts(self, forgotten: Run, now: Run) -> None:
        """A run that two workers have: one for the forgotten time, one for this ledger."""
        self.assertEqual(forgotten.id, now.id)
        self.assertFalse(beat_run(self.target, now.id, attempt=forgotten.attempt, known=1, done=0, failed=0))
        lost = {"attempt": forgotten.attempt, "reason": "boom", "tries": 1}
        self.assertFalse(lose_attempt(self.target, now.id, **lost))
        self.assertFalse(save_report(self.target, now.id, self.report(forgotten, Status.FAILED)))
        self.assertTrue(beat_run(self.target, now.id, attempt=now.attempt, known=1, done=0, failed=0))
        report = self.report(now)
        self.assertTrue(save_report(self.target, now.id, report))
        [run] = find_runs(self.target, now.repo, [now.commit])
        self.assertEqual((Status.PASSED, report), (run.status, report_on(self.target, run)))
        self.assertEqual("", runs_line([run]).note, "no attempt of its was lost")

    def test_who_tests_a_finished_run_anew_for_the_forgotten_time_speaks_for_nobody(self):
        repository = self.filled()
        back_up(self.database, self.file)
        rerun(self.database, repository.id, commit(1).id)
        forgotten = self.claim(1, 2)
        restore(self.target, self.file)
        self.assertIs(Status.FAILED, report_on(self.target, self.run_of(1, self.target)).status)
        self.assertTrue(rerun(self.target, repository.id, commit(1).id))

        self.assert_only_the_present_counts(forgotten, self.claim_next(1))

    def test_a_forgotten_report_that_comes_first_takes_no_later_ones_place(self):
        repository = self.filled()
        back_up(self.database, self.file)
        rerun(self.database, repository.id, commit(1).id)
        forgotten = self.claim(1, 2)
        restore(self.target, self.file)
        self.assertFalse(save_report(self.target, forgotten.id, self.report(forgotten)))
        self.assertEqual(1, rerun_tested(self.target, repository.id, [commit(1).id]))

        self.assert_only_the_present_counts(forgotten, self.claim_next(1))

    def test_who_tests_a_commit_that_is_forgotten_and_found_again_speaks_for_nobody(self):
        repository = self.filled()
        back_up(self.database, self.file)
        push(self.database, repository, commit(3))
        forgotten = self.claim(3, 1)
        restore(self.target, self.file)
        push(self.target, repository, commit(3))

        self.assert_only_the_present_counts(forgotten, self.claim_next(3))

    def test_who_tests_what_a_person_asked_for_in_the_forgotten_time_speaks_for_nobody(self):
        repository = self.filled()
        push(self.database, repository, commit(3), tested=frozenset())
        back_up(self.database, self.file)
        rerun(self.database, repository.id, commit(3).id)
        forgotten = self.claim(3, 1)
        restore(self.target, self.file)
        rerun(self.target, repository.id, commit(3).id)

        self.assert_only_the_present_counts(forgotten, self.claim_next(3))

    def test_two_restores_of_one_backup_give_out_no_token_twice(self):
        repository = self.filled()
        back_up(self.database, self.file)
        restore(self.target, self.file)
        for empty in (False, True):
            with self.subTest(empty=empty):
                rerun(self.target, repository.id, commit(1).id)
                forgotten = self.claim_next(1)
                if empty:  # nobody can look at what is forgotten
                    self.target = self.fresh_target()
                    self.target.migrate()
                later = datetime.now(UTC) + timedelta(seconds=5)
                with mock.patch.object(restores, "datetime", SimpleNamespace(now=lambda _, at=later: at)):
                    restore(self.target, self.file, replace=True)
                rerun(self.target, repository.id, commit(1).id)

                self.assert_only_the_present_counts(forgotten, self.claim_next(1))

    def test_new_rows_get_new_numbers_after_a_restore(self):
        self.filled()
        back_up(self.database, self.file)
        restore(self.target, self.file)
        other = add_repository(self.target, "other")
        self.assertEqual(1, push(self.target, other, commit(9)).runs)
        [run] = find_runs(self.target, "other", [commit(9).id])
        self.assertGreater(run.id, self.run_of(2, self.target).id)

    def test_a_backup_shows_one_instant_and_keeps_no_writer_waiting(self):
        repository = self.filled()
        before = contents(self.database)
        stored_rows = backup_module._stored_rows

        def rows_while_pushing(connection, table):
            if table.name == "commits":  # its repository has been read
                push(self.database, repository, commit(5))
            yield from stored_rows(connection, table)

        with mock.patch.object(backup_module, "_stored_rows", rows_while_pushing):
            back_up(self.database, self.file)

        self.assertEqual(State.QUEUED, self.run_of(5).state)
        restore(self.target, self.file)
        self.assertEqual(before, contents(self.target))

    def test_a_ledger_that_is_not_empty_is_replaced_only_when_asked_for(self):
        self.filled()
        back_up(self.database, self.file)
        push(self.target, add_repository(self.target, "precious"), commit(7))
        kept = contents(self.target)

        with self.assertRaisesRegex(UsageError, "is not empty; to lose what is in it, restore with --repl"):
            restore(self.target, self.file)
        self.assertEqual(kept, contents(self.target))

        restore(self.target, self.file, replace=True)
        self.assertEqual(contents(self.database), contents(self.target))

    def test_a_file_that_is_cut_anywhere_or_changed_is_refused_and_nothing_is_changed(self):
        self.filled()
        back_up(self.database, self.file)
        push(self.target, add_repository(self.target, "precious"), commit(7))
        kept, whole = contents(self.target), self.file.read_bytes()
        text = gzip.decompress(whole)
        lines = text.splitlines(keepends=True)
        damaged = {
            "cut": [whole[:size] for size in (*range(0, len(whole), len(whole) // 7), len(whole) - 1)],
            "flipped": [whole[:200] + bytes([whole[200] ^ 4]) + whole[201:]],
            "something after it": [whole + gzip.compress(b"x")],
            "no ending": [gzip.compress(b"".join(lines[:-1]))],
            "a row too few": [gzip.compress(b"".join(lines[:2] + lines[3:]))],
            "a changed row": [gzip.compress(text.replace(b"Commit 2", b"Commit 3"))],
            "no backup": [b"hello\n", gzip.compress(b"hello\n"), gzip.compress(b"{}\n")],
        }
        for name, files in damaged.items():
            for number, content in enumerate(files):
                with self.subTest(name, number=number):
                    self.file.write_bytes(content)
                    with self.assertRaisesRegex(LedgerError, "is no whole backup: .*nothing was changed"):
                        restore(self.target, self.file, replace=True)
        self.assertEqual(kept, contents(self.target))

    def test_a_backup_of_a_newer_version_is_refused(self):
        self.filled()
        with mock.patch.object(schema, "HEAD_REVISION", "9999"):
            back_up(self.database, self.file)
        with self.assertRaisesRegex(LedgerError, "version 9999, made by a newer ciapp"):
            restore(self.target, self.file)
        self.assertEqual(schema.HEAD_REVISION, self.target.revision())

    def test_a_backup_of_an_older_version_is_brought_to_this_one(self):
        self.filled()
        back_up(self.database, self.file)
        self.rewrite_as_version_1()

        restore(self.target, self.file)

        self.assertEqual(contents(self.database), contents(self.target))
        self.assertEqual(schema.HEAD_REVISION, self.target.revision())

    def rewrite_as_version_1(self):
        """The backup as version 1 would have made it: without the columns and the table that came later."""
        later = {
            "commits": {"purged_at"},
            "runs": {"fresh", "reused_from", "absences"},
            "reports": {"size", "fingerprint", "evidence"},
        }
        with open_backup(self.file) as backup:
            columns = backup.header.columns
            rows = list(backup.rows())
        kept = {
            name: [key for key in keys if key not in later.get(name, ())]
            for name, keys in columns.items()
            if name != "restores"
        }

        def as_it_was(connection, table):
            for name, values in rows:
                if name == table.name and name in kept:
                    row = dict(zip(columns[name], values, strict=True))
                    yield [row[key] for key in kept[name]]

        header = backup.header
        old = type(header)(revision="0001", made_at=header.made_at, columns=kept)
        with (
            mock.patch.object(backup_module, "_stored_rows", as_it_was),
            mock.patch.object(backup_module, "Header", return_value=old),
        ):
            back_up(self.database, self.file)

    def test_a_restored_ledger_sees_the_refs_as_they_were(self):
        repository = self.filled()
        back_up(self.database, self.file)
        restore(self.target, self.file)
        self.assertEqual(seen_refs(self.database, repository.id), seen_refs(self.target, repository.id))


class TestSqlite(BackupRules, unittest.TestCase):
    def test_a_backup_is_for_its_owners_eyes_and_replaces_an_older_one_whole(self):
        self.file.write_text("old")
        with (
            mock.patch.object(backup_module, "_write", side_effect=OSError(28, "No space left on device")),
            self.assertRaisesRegex(UsageError, "No space left on device; give a file where there is room"),
        ):
            back_up(self.database, self.file)
        self.assertEqual("old", self.file.read_text())

        back_up(self.database, self.file)

        self.assertEqual(0o600, self.file.stat().st_mode & 0o777)
        self.assertEqual([self.file], list(self.file.parent.iterdir()))

    def test_a_file_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(UsageError, "ledger.backup cannot be read: No such file or directory"):
            restore(self.target, self.file)


class TestPostgresql(BackupRules, unittest.TestCase):
    def fresh(self) -> Database:
        return fresh_postgresql(self)

    def fresh_target(self) -> Database:
        return fresh_postgresql(self)


class TestSqliteToPostgresql(BackupRules, unittest.TestCase):
    def fresh_target(self) -> Database:
        return fresh_postgresql(self)


@pytest.mark.slow
class TestPostgresqlToSqlite(BackupRules, unittest.TestCase):
    def fresh(self) -> Database:
        return fresh_postgresql(self)


if __name__ == "__main__":
    unittest.main()
