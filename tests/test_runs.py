"""The ledger's rules, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
import unittest
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import select, update

from ciapp.errors import LedgerError, UsageError
from ciapp.results import schema
from ciapp.results.attempts import list_attempts
from ciapp.results.database import Database, stored_text
from ciapp.results.order import DEFERRED
from ciapp.results.pinned import mark_unpinned, settled_pushes, unkept_commits
from ciapp.results.pushes import NewPush, find_repository, has_push, record_push, seen_refs
from ciapp.results.queue import next_runs, release_runs, reserve_runs
from ciapp.results.registration import check_name
from ciapp.results.report import State, Status
from ciapp.results.reruns import rerun
from ciapp.results.runs import (
    AWAY_PAUSES_S,
    Run,
    beat_run,
    cancel_run,
    claim_run,
    find_runs,
    lose_attempt,
    parse_task_id,
    running_runs,
)
from ciapp.results.store import load_report, make_report, report_on, save_report
from tests.support.ledgers import (
    add_repository,
    commit,
    count_queue,
    findings,
    fresh_postgresql,
    fresh_sqlite,
    push,
)


class LedgerRules:
    """Mixed into a test case per database."""

    database: Database

    def only_run(self) -> Run:
        [run] = find_runs(self.database, "team", [commit(1).id])
        return run

    def pushed_run(self) -> Run:
        self.repository = add_repository(self.database)
        push(self.database, self.repository, commit(1))
        return self.only_run()

    def claimed_run(self) -> Run:
        run = claim_run(self.database, self.pushed_run().id, attempt=1, worker="w#0")
        assert run is not None
        return run

    def report(self, run: Run, status: Status = Status.PASSED):
        return make_report(run, findings(status), finished_at=datetime.now(UTC))

    def test_a_push_makes_one_run_per_commit_and_recording_it_again_none(self):
        repository = add_repository(self.database)
        news = NewPush(
            record="r1",
            received_at=datetime.now(UTC),
            refs={"refs/heads/main": commit(2).id},
            tips={commit(2).id: ("refs/heads/main",)},
        )
        first = record_push(self.database, repository.id, news, [commit(1), commit(2)])
        again = record_push(self.database, repository.id, news, [commit(1), commit(2)])

        self.assertEqual((2, 2), (first.commits, first.runs))
        self.assertEqual(0, again.push_id)
        self.assertTrue(has_push(self.database, repository.id, "r1"))
        self.assertEqual(2, len(find_runs(self.database, "team", [commit(1).id, commit(2).id])))

    def test_a_commit_that_a_second_push_brings_again_keeps_its_run(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1))
        second = push(self.database, repository, commit(1), commit(2), ref="refs/heads/other")

        self.assertEqual((1, 1), (second.commits, second.runs))

    def test_a_push_whose_commits_cannot_be_read_leaves_no_trace(self):
        repository = add_repository(self.database)

        def broken():
            yield commit(1)
            raise OSError("the repository has vanished")

        news = NewPush(record="r1", received_at=datetime.now(UTC), refs={"refs/heads/main": "1"}, tips={})
        with self.assertRaises(OSError):
            record_push(self.database, repository.id, news, broken())

        self.assertFalse(has_push(self.database, repository.id, "r1"))
        self.assertEqual([], find_runs(self.database, "team", [commit(1).id]))
        self.assertEqual({}, seen_refs(self.database, repository.id))

    def test_refs_are_seen_moved_and_forgotten(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1))
        push(self.database, repository, commit(2))
        self.assertEqual({"refs/heads/main": commit(2).id}, seen_refs(self.database, repository.id))
        news = NewPush(
            record="gone", received_at=datetime.now(UTC), refs={"refs/heads/main": "0" * 40}, tips={}
        )
        record_push(self.database, repository.id, news, [])
        self.assertEqual({}, seen_refs(self.database, repository.id))

    def test_text_that_is_no_utf8_and_nul_are_stored(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1, subject="odd \udcff \0 \ud800"), ref="refs/heads/\udce9")
        [run] = find_runs(self.database, "team", [commit(1).id])

        self.assertEqual("odd \\xff \\x00 \\ud800", run.subject)
        self.assertEqual(
            {stored_text("refs/heads/\udce9"): commit(1).id}, seen_refs(self.database, repository.id)
        )

    def test_a_name_belongs_to_one_repository(self):
        add_repository(self.database)
        with self.assertRaisesRegex(UsageError, "belongs to here:/srv/team.git"):
            check_name(self.database, name="team", host="there", git_dir="/srv/team.git")
        with self.assertRaisesRegex(UsageError, "it knows team"):
            find_repository(self.database, "tame")

    def test_an_attempt_is_claimed_once(self):
        run = self.pushed_run()
        won = []

        def claim():
            if claim_run(self.database, run.id, attempt=1, worker="w#0"):
                won.append(1)

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        self.assertEqual([1], won)
        self.assertEqual(1, len(list_attempts(self.database, run.id)))

    def test_who_did_not_hear_the_answer_to_a_claim_asks_again_and_nobody_else_gets_it(self):
        moment = datetime.now(UTC)
        run = self.pushed_run()
        claim = partial(claim_run, self.database, run.id, attempt=1)
        first = claim(worker="w#0", at=moment)

        self.assertIsNotNone(first)
        self.assertEqual(first, claim(worker="w#0", at=moment))
        self.assertIsNone(claim(worker="w#1", at=moment))
        self.assertIsNone(claim(worker="w#0", at=moment + timedelta(seconds=1)))
        self.assertEqual(1, len(list_attempts(self.database, run.id)))

    def test_a_clock_that_is_set_back_keeps_no_lost_run_waiting(self):
        run = self.claimed_run()
        lose_attempt(self.database, run.id, attempt=1, reason="boom", tries=3)
        for wait_s, is_due in ((5, False), (3600, True)):
            with self.database.write() as connection:
                not_before = datetime.now(UTC) + timedelta(seconds=wait_s)
                connection.execute(update(schema.runs).values(not_before=not_before))
            self.assertEqual(is_due, run.id in [each.id for each in next_runs(self.database, 9)])

    def test_a_message_for_another_attempt_than_the_next_is_refused(self):
        run = self.pushed_run()
        self.assertIsNone(claim_run(self.database, run.id, attempt=2, worker="w#0"))
        self.assertIsNone(claim_run(self.database, run.id, attempt=0, worker="w#0"))
        self.assertIsNone(claim_run(self.database, 999, attempt=1, worker="w#0"))

    def test_a_report_finishes_the_run_and_saving_it_again_changes_nothing(self):
        run = self.claimed_run()
        report = self.report(run, Status.FAILED)

        self.assertTrue(save_report(self.database, run.id, report))
        self.assertTrue(save_report(self.database, run.id, report))

        finished = self.only_run()
        self.assertEqual((State.FINISHED, Status.FAILED), (finished.state, finished.status))
        self.assertEqual({"failed": 1}, finished.counts)
        self.assertEqual(report, load_report(self.database, run.id))
        self.assertEqual(["reported"], [one.ending for one in list_attempts(self.database, run.id)])

    def test_a_stale_report_is_refused_and_kept_as_evidence(self):
        run = self.claimed_run()
        self.assertTrue(lose_attempt(self.database, run.id, attempt=1, reason="silence", tries=3))
        second = claim_run(self.database, run.id, attempt=2, worker="w#1")

        self.assertFalse(beat_run(self.database, run.id, attempt=1, known=1, done=1, failed=0))
        self.assertFalse(save_report(self.database, run.id, self.report(run)))
        self.assertEqual(State.RUNNING, self.only_run().state)
        self.assertTrue(save_report(self.database, run.id, self.report(second, Status.FAILED)))

        self.assertEqual(Status.FAILED, self.only_run().status)
        self.assertEqual(Status.FAILED, load_report(self.database, run.id).status)
        self.assertEqual(Status.PASSED, load_report(self.database, run.id, 1).status)
        self.assertEqual(
            ["silence", "reported"], [one.ending for one in list_attempts(self.database, run.id)]
        )

    def test_beats_keep_the_lease_and_tell_of_progress(self):
        run = self.claimed_run()
        self.assertTrue(beat_run(self.database, run.id, attempt=1, known=10, done=4, failed=1))
        now = self.only_run()
        self.assertEqual((10, 4, 1), (now.tests_known, now.tests_done, now.tests_failed))
        self.assertGreater(now.beat, run.beat)

    def test_after_the_last_try_the_run_is_an_infra_error_that_says_why_each_was_lost(self):
        run = self.claimed_run()
        for attempt in (1, 2, 3):
            if attempt > 1:
                self.assertIsNotNone(claim_run(self.database, run.id, attempt=attempt, worker="w#0"))
            reason = f"boom {attempt}"
            self.assertTrue(lose_attempt(self.database, run.id, attempt=attempt, reason=reason, tries=3))

        ended = self.only_run()
        self.assertEqual((State.FINISHED, Status.INFRA_ERROR), (ended.state, ended.status))
        self.assertEqual("3 attempts were lost: boom 1; boom 2; boom 3", ended.reason)
        self.assertEqual(Status.INFRA_ERROR, report_on(self.database, ended).status)
        self.assertFalse(lose_attempt(self.database, run.id, attempt=3, reason="boom", tries=3))

    def test_an_attempt_that_a_stopped_worker_gave_back_does_not_count(self):
        run = self.claimed_run()
        lose_attempt(self.database, run.id, attempt=1, reason="stopped", tries=1, forgiven=True)
        self.assertEqual(
            (State.QUEUED, 0, 1), (self.only_run().state, self.only_run().tries, self.only_run().attempt)
        )

    def test_an_attempt_whose_repository_is_away_counts_only_when_it_is_away_for_minutes(self):
        run = self.claimed_run()
        pauses = []
        for attempt in range(1, len(AWAY_PAUSES_S) + 1):
            lost_at = datetime.now(UTC)
            self.assertTrue(self.lose_while_away(run, attempt))
            now = self.only_run()
            self.assertEqual((State.QUEUED, 0), (now.state, now.tries))
            with self.database.read() as connection:
                not_before = connection.scalar(select(schema.runs.c.not_before))
            pauses.append(round((not_before - lost_at).total_seconds()))
            self.assertIsNotNone(claim_run(self.database, run.id, attempt=attempt + 1, worker="w#0"))
        self.assertEqual(list(AWAY_PAUSES_S), pauses)
        self.assertGreater(sum(pauses), 300)

        for attempt in range(len(AWAY_PAUSES_S) + 1, len(AWAY_PAUSES_S) + 4):
            self.assertIs(State.RUNNING, self.only_run().state)
            self.assertTrue(self.lose_while_away(run, attempt))
            claim_run(self.database, run.id, attempt=attempt + 1, worker="w#0")
        ended = self.only_run()
        self.assertEqual((State.FINISHED, Status.INFRA_ERROR), (ended.state, ended.status))
        self.assertEqual("3 attempts were lost: away; away; away", ended.reason)

        # Who asks for it once more has it wait as long again.
        self.assertTrue(rerun(self.database, self.repository.id, run.commit))
        last = ended.attempt
        for attempt in range(last + 1, last + len(AWAY_PAUSES_S) + 1):
            self.assertIsNotNone(claim_run(self.database, run.id, attempt=attempt, worker="w#0"))
            self.assertTrue(self.lose_while_away(run, attempt))
        self.assertEqual((State.QUEUED, 0), (self.only_run().state, self.only_run().tries))

    def test_what_stopped_workers_gave_back_leaves_a_repository_all_its_time_to_come_back(self):
        run = self.claimed_run()
        for attempt in (1, 2, 3):
            lose_attempt(self.database, run.id, attempt=attempt, reason="stopped", tries=3, forgiven=True)
            claim_run(self.database, run.id, attempt=attempt + 1, worker="w#0")
        lost_at = datetime.now(UTC)
        self.assertTrue(self.lose_while_away(run, 4))
        with self.database.read() as connection:
            not_before = connection.scalar(select(schema.runs.c.not_before))
        self.assertEqual(AWAY_PAUSES_S[0], round((not_before - lost_at).total_seconds()))

    def lose_while_away(self, run, attempt):
        return lose_attempt(self.database, run.id, attempt=attempt, reason="away", tries=3, away=True)

    def test_cancel_at_every_state_and_rerun_after_it(self):
        run = self.pushed_run()
        self.assertFalse(rerun(self.database, self.repository.id, run.commit))
        self.assertTrue(cancel_run(self.database, run.id))
        self.assertFalse(cancel_run(self.database, run.id))
        self.assertIsNone(claim_run(self.database, run.id, attempt=1, worker="w#0"))
        self.assertTrue(rerun(self.database, self.repository.id, run.commit))
        claimed = claim_run(self.database, run.id, attempt=1, worker="w#0")
        self.assertTrue(cancel_run(self.database, run.id))
        self.assertFalse(beat_run(self.database, run.id, attempt=1, known=0, done=0, failed=0))
        self.assertFalse(save_report(self.database, run.id, self.report(claimed)))
        self.assertEqual(Status.CANCELLED, self.only_run().status)
        self.assertEqual(Status.CANCELLED, report_on(self.database, self.only_run()).status)
        self.assertTrue(rerun(self.database, self.repository.id, run.commit))
        self.assertIsNotNone(claim_run(self.database, run.id, attempt=2, worker="w#0"))

    def test_rerun_makes_a_run_for_a_commit_that_was_not_to_be_tested(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1), tested=frozenset())
        self.assertEqual([], find_runs(self.database, "team", [commit(1).id]))
        self.assertTrue(rerun(self.database, repository.id, commit(1).id))
        self.assertEqual(State.QUEUED, self.only_run().state)

    def sent_order(self, limit: int = 10) -> list[int]:
        return [int(run.commit, 16) for run in next_runs(self.database, limit)]

    def test_a_tip_goes_before_the_backlog_and_that_oldest_first(self):
        repository = add_repository(self.database)
        push(self.database, repository, *[commit(number) for number in range(1, 6)])
        self.assertEqual([5, 1, 2, 3, 4], self.sent_order())
        self.assertEqual([5, 1], self.sent_order(2))

    def test_a_newer_tip_of_a_branch_goes_before_the_older_one(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1), commit(2))
        push(self.database, repository, commit(3))
        self.assertEqual([3, 1, 2], self.sent_order())

    def test_superseded_commits_wait_behind_everything(self):
        repository = add_repository(self.database)
        push(self.database, repository, commit(1), commit(2))
        push(self.database, repository, commit(3), commit(4), supersede=True)
        self.assertEqual([4, 3, 1, 2], self.sent_order())
        [old] = find_runs(self.database, "team", [commit(1).id])
        self.assertEqual(DEFERRED, old.priority)

    def test_a_small_push_to_another_repository_overtakes_a_large_backlog(self):
        large, small = add_repository(self.database, "large"), add_repository(self.database, "small")
        push(self.database, large, *[commit(number) for number in range(1, 50)])
        reserve_runs(self.database, next_runs(self.database, 4))
        push(self.database, small, commit(100), commit(101))
        self.assertEqual([101, 100, 4], self.sent_order(3))

    def test_after_a_push_of_500_commits_one_elsewhere_and_a_newer_tip_come_within_a_run_per_slot(self):
        slots = 4
        large, small = add_repository(self.database, "large"), add_repository(self.database, "small")
        push(self.database, large, *[commit(number) for number in range(1, 501)])
        begun = self.begin_next(slots)
        self.assertEqual([500, 1, 2, 3], begun)
        push(self.database, small, commit(1001))
        push(self.database, large, commit(501))

        order = []
        for number in begun:  # one slot after the other has done with its run
            self.end(number)
            order += self.begin_next(1)
        self.assertEqual([1001, 501, 4, 5], order)

        self.assertEqual([*range(6, 500)], self.sent_order(1000))

    def begin_next(self, slots: int) -> list[int]:
        """The runs that free slots begin, by their commits' numbers."""
        due = reserve_runs(self.database, next_runs(self.database, slots))
        for run in due:
            self.assertIsNotNone(claim_run(self.database, run.id, attempt=1, worker="w#0"))
        return [int(run.commit, 16) for run in due]

    def end(self, number: int) -> None:
        for name in ("large", "small"):
            for run in find_runs(self.database, name, [commit(number).id]):
                self.assertTrue(cancel_run(self.database, run.id))

    def test_a_run_is_reserved_by_one_dispatcher_and_released_when_the_broker_refuses(self):
        self.pushed_run()
        due = next_runs(self.database, 5)
        self.assertEqual(1, len(reserve_runs(self.database, due)))
        self.assertEqual([], reserve_runs(self.database, due))
        self.assertEqual(1, count_queue(self.database).sent)
        self.assertEqual([], next_runs(self.database, 5))
        release_runs(self.database, due)
        self.assertEqual(1, count_queue(self.database).waiting)
        self.assertEqual(1, len(next_runs(self.database, 5)))

    def test_pins_are_settled_when_all_runs_of_the_push_have_ended(self):
        run = self.claimed_run()
        self.assertEqual({}, settled_pushes(self.database, self.repository.id))
        save_report(self.database, run.id, self.report(run))
        self.assertEqual(1, len(settled_pushes(self.database, self.repository.id)))

    def test_a_run_that_is_asked_for_again_is_kept_by_no_push_whose_pins_are_gone(self):
        run = self.claimed_run()
        save_report(self.database, run.id, self.report(run))
        [push_id] = settled_pushes(self.database, self.repository.id)
        self.assertEqual({}, unkept_commits(self.database, self.repository.id))
        rerun(self.database, self.repository.id, run.commit)
        self.assertEqual({}, unkept_commits(self.database, self.repository.id), "its push keeps it")
        mark_unpinned(self.database, [push_id])
        self.assertEqual({run.commit: run.parents}, unkept_commits(self.database, self.repository.id))
        claim_run(self.database, run.id, attempt=2, worker="w")
        self.assertEqual({run.commit: run.parents}, unkept_commits(self.database, self.repository.id))
        cancel_run(self.database, run.id)
        self.assertEqual({}, unkept_commits(self.database, self.repository.id))

    def test_a_task_id_names_repository_commit_run_and_attempt(self):
        run = self.claimed_run()
        self.assertEqual(f"team:{run.commit[:12]}:{run.id}:1", run.task_id)
        self.assertEqual((run.id, 1), parse_task_id(run.task_id))
        self.assertIsNone(parse_task_id("b7a7f8e0-6a3f-4a3e-9a39-0d5e3c1b2a11"))

    def test_migrating_at_once_from_many_processes_makes_the_tables_once(self):
        fresh = self.fresh()
        errors = []

        def migrate():
            try:
                Database(fresh.engine.url.render_as_string(hide_password=False)).migrate()
            except LedgerError as error:
                errors.append(error)

        threads = [threading.Thread(target=migrate) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], errors)
        self.assertEqual([], running_runs(fresh))

    def test_a_database_of_a_newer_version_is_refused_and_left_alone(self):
        with self.database.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with self.assertRaisesRegex(LedgerError, "version 9999, made by a newer ciapp"):
            self.database.migrate()
        self.assertEqual("9999", self.database.revision())


class TestSqlite(LedgerRules, unittest.TestCase):
    def setUp(self):
        self.database = self.fresh()
        self.database.migrate()

    def fresh(self) -> Database:
        return fresh_sqlite(self)


class TestPostgresql(LedgerRules, unittest.TestCase):
    def setUp(self):
        self.database = self.fresh()
        self.database.migrate()

    def fresh(self) -> Database:
        return fresh_postgresql(self)


class TestMigrations(unittest.TestCase):
    def test_the_migrations_make_the_tables_that_the_schema_describes(self):
        from alembic.autogenerate import compare_metadata
        from alembic.runtime.migration import MigrationContext

        from ciapp.results.schema import HEAD_REVISION, metadata

        database = fresh_sqlite(self)
        database.migrate()
        with database.read() as connection:
            self.assertEqual([], compare_metadata(MigrationContext.configure(connection), metadata))
        self.assertEqual(HEAD_REVISION, database.revision())


if __name__ == "__main__":
    unittest.main()
