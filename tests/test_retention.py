"""What a purge deletes, and what it must not, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest import mock

from sqlalchemy import delete, func, select, update

from ciapp.intake.dispatcher import Dispatcher
from ciapp.progress import log_line
from ciapp.results import retention, schema
from ciapp.results.attempts import list_attempts
from ciapp.results.database import Database
from ciapp.results.history import commit_log
from ciapp.results.pushes import KnownRepository
from ciapp.results.report import Report, State
from ciapp.results.reruns import rerun
from ciapp.results.retention import HOLD_S, Pace, Purged, Retention, purge, retention_of, stored_bytes
from ciapp.results.runs import Run, beat_run, claim_run, find_runs
from ciapp.results.store import load_report, make_report, save_report
from ciapp.settings import RetentionSettings, Settings
from tests.support.installation import eventually
from tests.support.ledgers import (
    add_repository,
    commit,
    findings,
    fresh_postgresql,
    fresh_sqlite,
    push,
    waits_for_a_lock,
)

NOTHING = Retention(keep_runs=0)  #: keep no run but those that are never purged


class RetentionRules:
    """Mixed into a test case per database."""

    database: Database

    def finish(self, number: int, *, repo: str = "team", days_ago: float = 0) -> Report:
        [run] = find_runs(self.database, repo, [commit(number).id])
        return self.finish_run(run, days_ago=days_ago)

    def finish_run(self, run: Run, *, days_ago: float) -> Report:
        claimed = claim_run(self.database, run.id, attempt=run.attempt + 1, worker="w#0")
        ended_at = datetime.now(UTC) - timedelta(days=days_ago)
        report = make_report(claimed, findings(), finished_at=ended_at)
        self.assertTrue(save_report(self.database, run.id, report))
        return report

    def finished(self, *days_ago: float, repo: str = "team") -> KnownRepository:
        """A repository whose commits 1, 2, … finished so many days ago; then an untested tip."""
        repository = add_repository(self.database, repo)
        numbers = range(1, len(days_ago) + 1)
        for number in numbers:
            push(self.database, repository, commit(number))
        for number, days in zip(numbers, days_ago, strict=True):
            self.finish(number, repo=repo, days_ago=days)
        push(self.database, repository, commit(1000), tested=frozenset())
        return repository

    def left(self, repo: str = "team") -> list[int]:
        found = find_runs(self.database, repo, [commit(number).id for number in range(1, 1000)])
        return sorted(int(run.commit, 16) for run in found)

    def only_run(self, number: int) -> Run:
        [run] = find_runs(self.database, "team", [commit(number).id])
        return run

    def test_runs_that_finished_longer_ago_than_is_kept_go_with_attempts_and_reports(self):
        self.finished(100, 91, 89, 1)
        old = self.only_run(1)
        size = stored_bytes(self.database)

        done = purge(self.database, Retention(keep=timedelta(days=90)))

        self.assertEqual([3, 4], self.left())
        self.assertEqual((2, True), (done.runs, done.is_complete))
        self.assertEqual(size, stored_bytes(self.database) + done.bytes)
        self.assertGreater(done.bytes, 0)
        self.assertIsNone(load_report(self.database, old.id))
        self.assertEqual([], list_attempts(self.database, old.id))
        self.assertIsNotNone(load_report(self.database, self.only_run(3).id))

    def test_the_newest_runs_of_each_repository_are_kept(self):
        self.finished(4, 3, 2, 1)
        self.finished(9, 8, 7, repo="other")

        self.assertEqual(3, purge(self.database, Retention(keep_runs=2)).runs)

        self.assertEqual(([3, 4], [2, 3]), (self.left(), self.left("other")))

    def test_of_runs_that_finished_at_the_same_time_no_more_go_than_may(self):
        self.finished(4, 3, 2, 1)
        with self.database.write() as connection:
            connection.execute(update(schema.runs).values(finished_at=datetime(2026, 1, 1, tzinfo=UTC)))
        self.assertEqual(2, purge(self.database, Retention(keep_runs=2)).runs)
        self.assertEqual([3, 4], self.left())

    def test_a_run_that_either_rule_keeps_stays(self):
        self.finished(100, 99, 98, 1)
        purge(self.database, Retention(keep=timedelta(days=90), keep_runs=2))
        self.assertEqual([3, 4], self.left())
        purge(self.database, Retention(keep=timedelta(days=365), keep_runs=1))
        self.assertEqual([3, 4], self.left())

    def test_beyond_the_bytes_the_oldest_go_whatever_the_other_rules_keep(self):
        self.finished(4, 1)
        self.finished(3, 2, repo="other")
        one = stored_bytes(self.database) / 4

        purge(self.database, Retention(keep=timedelta(days=90), max_bytes=int(2.5 * one)))

        self.assertEqual(([2], [2]), (self.left(), self.left("other")))
        self.assertLessEqual(stored_bytes(self.database), 2.5 * one)

    def test_the_finished_runs_of_a_commit_go_together_or_stay(self):
        repository = add_repository(self.database)
        both = ("python3.10", "python3.13")
        for number in (1, 2, 3):
            push(self.database, repository, commit(number), environments=both)
        push(self.database, repository, commit(1000), tested=frozenset())
        for number, days_ago in ((1, (9, 1)), (2, (8, 7)), (3, (6, None))):
            runs = find_runs(self.database, "team", [commit(number).id])
            for run, days in zip(runs, days_ago, strict=True):
                if days is not None:
                    self.finish_run(run, days_ago=days)

        purge(self.database, Retention(keep=timedelta(days=5)))
        self.assertEqual([1, 1, 3], self.left(), "one of the first is kept, and one of the last not finished")
        one = stored_bytes(self.database) / 2
        purge(self.database, Retention(max_bytes=int(1.5 * one)))
        self.assertEqual([3], self.left())

    def test_nothing_said_keeps_all(self):
        self.finished(4000, 3000)
        self.assertEqual(Purged(), purge(self.database, Retention()))
        self.assertEqual([1, 2], self.left())
        self.assertTrue(retention_of(RetentionSettings()).keeps_all)

    def test_the_settings_zero_sets_no_limit(self):
        settings = RetentionSettings(keep_days=90, max_mib=3)
        self.assertEqual(Retention(keep=timedelta(days=90), max_bytes=3 << 20), retention_of(settings))

    def test_the_run_of_what_a_branch_names_stays_and_goes_when_the_branch_has_moved_on(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1))
        self.finish(1, days_ago=100)
        rule = Retention(keep=timedelta(days=1), max_bytes=0)

        self.assertEqual(0, purge(self.database, rule).runs)
        push(self.database, repository, commit(2), tested=frozenset())
        self.assertEqual(1, purge(self.database, rule).runs)

    def test_runs_that_have_not_finished_stay_with_their_lost_attempts_evidence(self):
        repository = self.finished(100)
        push(self.database, repository, commit(2), commit(3))
        claim_run(self.database, self.only_run(2).id, attempt=1, worker="w#0")
        self.assertTrue(rerun(self.database, repository.id, commit(1).id))
        push(self.database, repository, commit(4), tested=frozenset())

        self.assertEqual(0, purge(self.database, Retention(keep_runs=0, max_bytes=0)).runs)

        self.assertEqual([1, 2, 3], self.left())
        self.assertIsNotNone(load_report(self.database, self.only_run(1).id, 1))

    def test_a_dry_run_says_the_same_and_deletes_nothing(self):
        self.finished(3, 2, 1)
        rule = Retention(keep_runs=1)
        said = purge(self.database, rule, dry_run=True)
        self.assertEqual([1, 2, 3], self.left())
        self.assertEqual(said, purge(self.database, rule))

    def test_a_purged_commit_that_is_pushed_again_is_not_tested_again(self):
        repository = self.finished(2)
        purge(self.database, NOTHING)
        again = push(self.database, repository, commit(1), commit(2), ref="refs/heads/back")

        self.assertEqual((1, 1), (again.commits, again.runs))
        self.assertEqual([2], self.left())

    def test_the_log_says_which_commits_were_purged(self):
        repository = self.finished(2, 1)
        purge(self.database, Retention(keep_runs=1))
        push(self.database, repository, commit(5, parents=(commit(1).id,)), tested=frozenset())
        logged = commit_log(self.database, repository, commit(5).id, "elsewhere", 9)

        self.assertEqual(["not tested", "purged"], [log_line(one).note for one in logged])

    def test_a_purged_commit_is_tested_when_a_person_asks_for_it(self):
        repository = self.finished(2)
        purge(self.database, NOTHING)
        self.assertTrue(rerun(self.database, repository.id, commit(1).id))
        self.assertEqual(State.QUEUED, self.only_run(1).state)

    def test_a_report_that_comes_for_a_purged_run_is_dropped(self):
        self.finished(2, 1)
        run_id, report = self.only_run(1).id, load_report(self.database, self.only_run(1).id)
        purge(self.database, NOTHING)
        self.assertFalse(save_report(self.database, run_id, report))

    def test_a_report_that_comes_for_a_number_that_is_now_another_commits_is_dropped(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1), commit(2))
        run = claim_run(self.database, self.only_run(1).id, attempt=1, worker="w#0")
        foreign = make_report(
            claim_run(self.database, self.only_run(2).id, attempt=1, worker="w#1"),
            findings(),
            finished_at=datetime.now(UTC),
        )
        self.assertFalse(save_report(self.database, run.id, foreign))
        self.assertIsNone(load_report(self.database, run.id, 1))
        self.assertEqual(State.RUNNING, self.only_run(1).state)

    def test_a_run_that_is_asked_for_again_after_it_was_chosen_stays(self):
        repository = self.finished(3, 2)
        chosen = retention._doomed

        def choose_then_rerun(*arguments):
            found = chosen(*arguments)
            rerun(self.database, repository.id, commit(1).id)
            push(self.database, repository, commit(2), ref="refs/heads/moved")
            return found

        with mock.patch.object(retention, "_doomed", choose_then_rerun):
            self.assertEqual(Purged(), purge(self.database, NOTHING))
        self.assertEqual([1, 2], self.left())

    def test_when_time_is_up_the_rest_is_left_for_the_next_purge(self):
        self.finished(*range(12, 0, -1))

        first = purge(self.database, NOTHING, within_s=0.001)
        self.assertFalse(first.is_complete)
        self.assertLess(first.runs, 12)
        last = purge(self.database, NOTHING)

        self.assertEqual((12, True), (first.runs + last.runs, last.is_complete))
        self.assertEqual([], self.left())

    def tried(self, repository: KnownRepository, number: int, attempts: int) -> int:
        """Test a commit again, until it had so many attempts; the size of a report on it."""
        for _ in range(attempts - 1):
            rerun(self.database, repository.id, commit(number).id)
            self.finish(number, days_ago=9)
        with self.database.read() as connection:
            return connection.scalar(select(func.max(schema.reports.c.size)))

    def sizes_at_pauses(self, rule: Retention, batch_bytes: int, meanwhile=lambda: None) -> list[int]:
        """Purge in batches of so many bytes; what the ledger holds before, between and after them."""
        sizes = [stored_bytes(self.database)]

        def sleep(_):
            sizes.append(stored_bytes(self.database))
            meanwhile()

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
        with (
            mock.patch.object(retention, "MOST_BYTES", batch_bytes),
            mock.patch.object(retention, "time", clock),
        ):
            done = purge(self.database, rule)
        sizes.append(stored_bytes(self.database))
        self.assertEqual(sizes[0] - sizes[-1], done.bytes)
        return sizes

    def test_no_batch_deletes_more_bytes_than_it_may_though_a_run_has_more(self):
        repository = self.finished(3, 2, 1)
        one = self.tried(repository, 2, attempts=9)

        sizes = self.sizes_at_pauses(NOTHING, int(3.5 * one))

        self.assertEqual(0, sizes[-1])
        self.assertGreater(len(sizes), 4)
        gone = [before - after for before, after in itertools.pairwise(sizes)]
        self.assertLessEqual(max(gone), 3.5 * one)
        self.assertEqual([], self.left())

    def test_a_run_that_is_asked_for_while_its_reports_go_keeps_its_last(self):
        repository = self.finished(3)
        one = self.tried(repository, 1, attempts=9)

        self.sizes_at_pauses(
            NOTHING, int(3.5 * one), lambda: rerun(self.database, repository.id, commit(1).id)
        )

        self.assertEqual(State.QUEUED, self.only_run(1).state)
        self.assertEqual(9, load_report(self.database, self.only_run(1).id).attempt)

    def test_beats_go_through_while_many_runs_are_deleted(self):
        repository = self.finished()
        numbers = range(1, 400)
        push(self.database, repository, *[commit(number) for number in numbers])
        with self.database.write() as connection:
            connection.execute(
                update(schema.runs).values(
                    state=State.FINISHED, status="passed", finished_at=datetime.now(UTC)
                )
            )
        push(self.database, repository, commit(500))
        run = claim_run(self.database, self.only_run(500).id, attempt=1, worker="w#0")
        ended, beats = threading.Event(), []

        def beat():
            while not ended.is_set():
                beat_run(self.database, run.id, attempt=1, known=0, done=0, failed=0)
                beats.append(time.monotonic())

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            done = purge(self.database, NOTHING)
        finally:
            ended.set()
            thread.join()
        self.assertEqual(399, done.runs)
        self.assertGreater(len(beats), 5)


class TestSqlite(RetentionRules, unittest.TestCase):
    def setUp(self):
        self.database = fresh_sqlite(self)
        self.database.migrate()


class TestPostgresql(RetentionRules, unittest.TestCase):
    def setUp(self):
        self.database = fresh_postgresql(self)
        self.database.migrate()

    def test_a_rerun_that_waits_for_the_purge_of_its_run_makes_another_one(self):
        repository = self.finished(2)
        with ThreadPoolExecutor() as pool, self.database.write() as purging:
            purging.execute(select(schema.runs.c.id).with_for_update())
            asked = pool.submit(rerun, self.database, repository.id, commit(1).id)
            eventually(lambda: waits_for_a_lock(self.database), "the rerun waits for the row")
            purging.execute(delete(schema.runs))
            purging.commit()

        self.assertTrue(asked.result())
        self.assertEqual((State.QUEUED, 0), (self.only_run(1).state, self.only_run(1).attempt))


class TestPace(unittest.TestCase):
    def test_batches_grow_while_they_are_quick_and_shrink_when_one_was_slow(self):
        pace = Pace()
        first = pace.runs
        pace.note(HOLD_S / 10)
        self.assertEqual(2 * first, pace.runs)
        pace.note(HOLD_S * 0.8)
        self.assertEqual(2 * first, pace.runs)
        pace.note(HOLD_S * 3)
        self.assertEqual(first, pace.runs)
        for _ in range(10):
            pace.note(HOLD_S * 3)
        self.assertEqual(1, pace.runs)

    def test_a_batch_holds_no_more_bytes_than_it_may_but_always_a_run(self):
        self.assertEqual(1, retention._fitting([3 << 20] * 3))
        self.assertEqual(3, retention._fitting([1 << 20] * 3))
        self.assertEqual(1, retention._fitting([1 << 30, 1]))
        self.assertEqual(0, retention._fitting([]))


class TestDispatcher(unittest.TestCase):
    def test_the_dispatcher_purges_a_little_at_a_time_until_all_is_done(self):
        settings = Settings(retention=RetentionSettings(keep_days=1))
        database = fresh_sqlite(self)
        dispatcher = Dispatcher(settings, database, send=lambda runs: None)
        answers = [Purged(runs=5, is_complete=False), Purged(runs=2)]
        with mock.patch("ciapp.intake.dispatcher.purge", side_effect=answers) as purged:
            dispatcher.retain()
            dispatcher.retain()
            self.assertEqual(1, purged.call_count, "not again at once")
            self.assertEqual(Retention(keep=timedelta(days=1)), purged.call_args.args[1])
            with mock.patch("ciapp.intake.dispatcher.time.monotonic", return_value=1e12):
                dispatcher.retain()
            self.assertEqual(2, purged.call_count)

    def test_without_such_a_setting_the_dispatcher_purges_nothing(self):
        with mock.patch("ciapp.intake.dispatcher.purge") as purged:
            Dispatcher(Settings(), fresh_sqlite(self), send=lambda runs: None).retain()
        purged.assert_not_called()

    def test_a_step_of_the_dispatcher_purges(self):
        database = fresh_sqlite(self)
        database.migrate()
        repository = add_repository(database)
        push(database, repository, commit(1))
        with database.write() as connection:
            long_ago = datetime.now(UTC) - timedelta(days=9)
            connection.execute(
                update(schema.runs).values(state=State.FINISHED, status="passed", finished_at=long_ago)
            )
        push(database, repository, commit(2), tested=frozenset())
        settings = Settings(host="elsewhere", retention=RetentionSettings(keep_days=7))
        Dispatcher(settings, database, send=lambda runs: None).step()
        self.assertEqual([], find_runs(database, "team", [commit(1).id]))


class TestSizes(unittest.TestCase):
    def test_sizes_are_added_up_without_reading_a_document(self):
        database = fresh_sqlite(self)
        database.migrate()
        with database.read() as connection:
            plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN SELECT sum(size) FROM reports").all()
        self.assertIn("COVERING INDEX", plan[0].detail)

    def test_reports_of_a_ledger_of_version_1_have_their_size_after_the_migration(self):
        database = fresh_sqlite(self)
        database.migrate()
        repository = add_repository(database)
        push(database, repository, commit(1))
        [run] = find_runs(database, "team", [commit(1).id])
        claimed = claim_run(database, run.id, attempt=1, worker="w#0")
        save_report(database, run.id, make_report(claimed, findings(), finished_at=datetime.now(UTC)))
        with database.write() as connection:
            for statement in (
                "DROP INDEX ix_reports_run_id_size",
                "DROP INDEX ix_runs_repository_id_finished_at",
                "ALTER TABLE reports DROP COLUMN size",
                "ALTER TABLE commits DROP COLUMN purged_at",
                "DROP INDEX ix_reports_fingerprint",
                "ALTER TABLE reports DROP COLUMN fingerprint",
                "ALTER TABLE reports DROP COLUMN evidence",
                "ALTER TABLE runs DROP COLUMN fresh",
                "ALTER TABLE runs DROP COLUMN reused_from",
                "ALTER TABLE runs DROP COLUMN absences",
                "ALTER TABLE workers DROP COLUMN environments",
                "ALTER TABLE workers DROP COLUMN hindrance",
                "DROP TABLE restores",
                "UPDATE alembic_version SET version_num = '0001'",
            ):
                connection.exec_driver_sql(statement)
        database.migrate()
        with database.read() as connection:
            document = connection.scalar(select(schema.reports.c.document))
        self.assertEqual(len(document), stored_bytes(database))


if __name__ == "__main__":
    unittest.main()
