"""The Celery result backend: what a task id is answered with, and what a lost worker leads to."""

from __future__ import annotations

import json
import os
import signal
import unittest
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from celery import Celery

from ciapp.backend import LedgerBackend
from ciapp.errors import CheckoutError, FetchError, LedgerError
from ciapp.results.attempts import list_attempts
from ciapp.results.database import Database
from ciapp.results.report import State, Status, to_json_types
from ciapp.results.runs import Run, claim_run, find_runs, lose_attempt, task_id
from ciapp.results.store import load_report, make_report
from tests.support.git_repositories import new_folder
from tests.support.installation import SLOW, Installation, eventually
from tests.support.ledgers import add_repository, commit, findings, push
from tests.support.processes import pool_processes


class TestTaskState(unittest.TestCase):
    """A task's state is what the ledger says of its attempt."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CIAPP_")}
        state = {"CIAPP_STATE_DIR": str(self.folder), "HOME": str(self.folder)}
        patch = mock.patch.dict(os.environ, kept | state, clear=True)
        patch.start()
        self.addCleanup(patch.stop)
        self.database = Database(f"sqlite:///{self.folder / 'ledger.sqlite3'}")
        self.database.migrate()
        self.app = Celery("test", backend="ciapp.backend:LedgerBackend", set_as_current=False)
        push(self.database, add_repository(self.database), commit(1))

    @property
    def run_now(self) -> Run:
        [run] = find_runs(self.database, "team", [commit(1).id])
        return run

    def claim(self) -> Run:
        run = self.run_now
        claimed = claim_run(self.database, run.id, attempt=run.attempt + 1, worker="celery@here#0")
        assert claimed is not None
        return claimed

    def result(self, attempt: int = 1) -> Any:
        return self.app.AsyncResult(task_id(self.run_now, attempt))

    def store(self, result: Any, state: str, attempt: int = 1) -> None:
        """As Celery does when a task changes its state."""
        self.app.backend.store_result(task_id(self.run_now, attempt), result, state)

    def test_a_run_that_waits_and_a_task_that_nobody_knows_are_pending(self) -> None:
        self.assertEqual("PENDING", self.result().state)
        for name in ("nonsense", "a:b:c:d", "team:d4e5f6a1b2c3:999:1", "team:d4e5f6a1b2c3:1:99"):
            self.assertEqual("PENDING", self.app.AsyncResult(name).state)

    def test_a_worker_shows_the_database_without_its_password(self) -> None:
        with mock.patch.dict(os.environ, CIAPP_DATABASE_URL="postgresql://ann:secret@db.example.org/ciapp"):
            shown = LedgerBackend(self.app).as_uri(include_password=True)
        self.assertEqual("postgresql+psycopg://ann:***@db.example.org/ciapp", shown)

    def test_a_run_that_a_worker_tests_is_started(self) -> None:
        self.claim()
        self.assertEqual(
            ("STARTED", {"hostname": "celery@here#0"}), (self.result().state, self.result().info)
        )

    def test_a_finished_run_is_a_success_whose_result_is_the_report_in_json_types(self) -> None:
        run = self.claim()
        report = make_report(run, findings(Status.FAILED), finished_at=datetime.now(UTC))
        self.store(to_json_types(report), "SUCCESS")

        document = self.result().get(timeout=5)
        self.assertEqual(
            ("SUCCESS", "failed", 1), (self.result().state, document["status"], document["schema"])
        )
        self.assertEqual(document, json.loads(json.dumps(document)))
        self.assertIs(Status.FAILED, self.run_now.status)

    def test_a_lost_attempt_is_a_failure_that_says_why_and_the_next_is_its_own_task(self) -> None:
        run = self.claim()
        lose_attempt(self.database, run.id, attempt=1, reason="worker w was silent for 30 s", tries=3)
        self.assertEqual("FAILURE", self.result().state)
        with self.assertRaisesRegex(Exception, "worker w was silent for 30 s"):
            self.result().get(timeout=5)
        self.assertEqual("PENDING", self.result(2).state)
        self.claim()
        self.assertEqual(("FAILURE", "STARTED"), (self.result(1).state, self.result(2).state))

    def test_a_report_that_comes_late_is_evidence_and_no_success(self) -> None:
        run = self.claim()
        lose_attempt(self.database, run.id, attempt=1, reason="worker w was silent for 30 s", tries=3)
        with self.assertLogs("ciapp", "WARNING") as logged:
            late = make_report(run, findings(), finished_at=datetime.now(UTC))
            self.store(to_json_types(late), "SUCCESS")
        self.assertEqual(
            ["report came too late, kept as evidence"], [record.message for record in logged.records]
        )
        self.assertEqual((State.QUEUED, "FAILURE"), (self.run_now.state, self.result().state))
        self.assertEqual(late, load_report(self.database, run.id, 1))

    def test_a_task_that_failed_loses_its_attempt(self) -> None:
        self.claim()
        with self.assertLogs("ciapp", "WARNING") as logged:
            self.store(LedgerError("ledger: it burns"), "FAILURE")
        self.assertEqual(["attempt lost"], [record.message for record in logged.records])
        self.assertIs(State.QUEUED, self.run_now.state)
        self.assertEqual("ledger: it burns", self.run_now.reason)

    def test_an_attempt_whose_repository_is_away_does_not_count(self) -> None:
        for failure, tries in ((FetchError("nowhere"), 0), (CheckoutError("no room"), 1)):
            self.claim()
            with self.assertLogs("ciapp", "WARNING"):
                self.store(failure, "FAILURE", attempt=self.run_now.attempt)
            self.assertEqual((State.QUEUED, tries), (self.run_now.state, self.run_now.tries))

    def test_the_failure_of_an_attempt_that_is_over_changes_nothing(self) -> None:
        self.claim()
        self.store(LedgerError("one"), "FAILURE")
        self.claim()
        self.store(LedgerError("late"), "FAILURE", attempt=1)
        self.assertEqual((State.RUNNING, 2), (self.run_now.state, self.run_now.attempt))

    def test_what_it_cannot_tell_the_ledger_is_no_failure_of_the_task(self) -> None:
        run = self.claim()
        document = to_json_types(make_report(run, findings(), finished_at=datetime.now(UTC)))
        away = mock.patch.object(Database, "write", side_effect=LedgerError("ledger: away"))
        with away, mock.patch("ciapp.results.outbox.INSIST_S", 0.2), self.assertLogs("ciapp", "WARNING"):
            self.store(document, "SUCCESS")
            self.store(LedgerError("x"), "FAILURE")
            self.store({"pid": 1}, "STARTED")
        self.assertEqual(["1-1.report"], [file.name for file in (self.folder / "outbox").iterdir()])
        self.assertIs(State.RUNNING, self.run_now.state)

    def test_tasks_of_others_and_attempts_that_gave_way_leave_no_trace(self) -> None:
        self.app.backend.store_result("some-other-task", {"x": 1}, "SUCCESS")
        self.store(None, "SUCCESS")
        self.assertIs(State.QUEUED, self.run_now.state)


class TestLostWorker(unittest.TestCase):
    def test_a_run_whose_pool_process_was_killed_is_queued_again_within_seconds(self) -> None:
        ci = Installation(self, "lease_s = 600")
        clone = ci.make_repository()
        ci.start("dispatcher")
        worker = ci.start("worker", "--concurrency=1")
        lost = ci.push_commit(clone, {"tests/test_a.py": SLOW})
        eventually(lambda: [run for run in ci.runs(lost) if run.tests_known], "the test runs")
        for child in pool_processes(worker.pid):
            os.kill(child, signal.SIGKILL)

        def first_ending() -> str:
            [run] = ci.runs(lost)
            return list_attempts(ci.database, run.id)[0].ending

        self.assertIn("SIGKILL", eventually(first_ending, f"the attempt ends {ci.logs()}", 30))
        self.assertIs(Status.PASSED, ci.report(lost).status)
        [run] = ci.runs(lost)
        self.assertEqual((2, 2), (run.attempt, len(list_attempts(ci.database, run.id))))


if __name__ == "__main__":
    unittest.main()
