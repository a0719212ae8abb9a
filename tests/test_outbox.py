"""Reports that wait on a worker's disk while the database is away."""

from __future__ import annotations

import os
import subprocess
import threading
import unittest
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from ciapp.errors import LedgerAwayError, LedgerError
from ciapp.results import outbox
from ciapp.results.attempts import list_attempts
from ciapp.results.database import Database
from ciapp.results.outbox import Outbox
from ciapp.results.report import Report, State, Status
from ciapp.results.runs import Run, cancel_run, claim_run, find_runs
from ciapp.results.store import load_report, make_report, save_report
from tests.support.git_repositories import new_folder
from tests.support.installation import SLOW, Installation, eventually
from tests.support.ledgers import add_repository, commit, findings, fresh_sqlite, push
from tests.support.servers import PrivatePostgreSQL


class TestOutbox(unittest.TestCase):
    """A PostgreSQL of its own, which is killed and started again."""

    def setUp(self) -> None:
        self.server = PrivatePostgreSQL(self)
        self.database = Database(self.server.url.replace("postgresql://", "postgresql+psycopg://"))
        self.addCleanup(self.database.close)
        self.database.migrate()
        push(self.database, add_repository(self.database), commit(1))
        self.folder = new_folder(self) / "outbox"
        self.outbox = Outbox(self.folder, self.database)
        patch = mock.patch.object(outbox, "INSIST_S", 0.5)
        patch.start()
        self.addCleanup(patch.stop)

    def the_run(self) -> Run:
        [run] = find_runs(self.database, "team", [commit(1).id])
        return run

    def found(self) -> tuple[Run, Report]:
        """A run that a worker has tested, and its report."""
        run = claim_run(self.database, self.the_run().id, attempt=1, worker="w#0")
        assert run is not None
        return run, make_report(run, findings(), finished_at=datetime.now(UTC))

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []

    def test_a_report_goes_straight_to_the_ledger(self) -> None:
        run, report = self.found()
        self.outbox.deliver(run.id, report)
        self.assertEqual((Status.PASSED, []), (self.the_run().status, self.files()))

    def test_a_report_waits_on_disk_for_the_ledger_and_arrives_once(self) -> None:
        run, report = self.found()
        self.server.kill()
        self.outbox.deliver(run.id, report)
        self.assertEqual([f"{run.id}-1.report"], [file.name for file in self.files()])
        self.assertEqual(1, self.outbox.deliver_waiting())

        self.server.start()
        self.assertEqual(0, Outbox(self.folder, self.database).deliver_waiting())
        self.assertEqual((Status.PASSED, []), (self.the_run().status, self.files()))
        self.assertEqual(report, load_report(self.database, run.id))
        self.assertEqual(["reported"], [each.ending for each in list_attempts(self.database, run.id)])

    def test_who_delivers_goes_on_trying_for_a_while(self) -> None:
        run, report = self.found()
        self.server.kill()
        with mock.patch.object(outbox, "INSIST_S", 60):
            thread = threading.Thread(target=self.outbox.deliver, args=(run.id, report))
            thread.start()
            eventually(self.files, "the report is on disk")
            self.server.start()
            thread.join(30)
        self.assertEqual((Status.PASSED, []), (self.the_run().status, self.files()))

    def test_several_may_deliver_the_same_report(self) -> None:
        run, report = self.found()
        self.server.kill()
        self.outbox.deliver(run.id, report)
        self.server.start()
        threads = [
            threading.Thread(target=Outbox(self.folder, self.database).deliver_waiting) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((Status.PASSED, []), (self.the_run().status, self.files()))
        self.assertEqual(1, len(list_attempts(self.database, run.id)))

    def test_a_report_that_comes_after_a_cancel_is_kept_as_evidence(self) -> None:
        run, report = self.found()
        cancel_run(self.database, run.id)
        self.outbox.deliver(run.id, report)
        self.assertEqual((Status.CANCELLED, []), (self.the_run().status, self.files()))
        self.assertEqual(report, load_report(self.database, run.id, 1))

    def test_a_file_that_is_no_report_is_put_aside_and_stops_nobody(self) -> None:
        run, report = self.found()
        self.server.kill()
        self.outbox.deliver(run.id, report)
        (self.folder / "0-1.report").write_bytes(b"cut")
        (self.folder / "x.report").write_bytes(b"foreign")
        self.server.start()
        with self.assertLogs("ciapp", "ERROR"):
            self.assertEqual(0, self.outbox.deliver_waiting())
        self.assertIs(Status.PASSED, self.the_run().status)
        self.assertEqual(["0-1.unreadable", "x.unreadable"], [file.name for file in self.files()])

    def test_a_disk_that_takes_no_report_is_no_failure_of_the_run(self) -> None:
        run, report = self.found()
        self.folder.parent.joinpath("outbox").touch()  # a folder cannot be made there
        self.server.kill()
        with mock.patch.object(outbox, "INSIST_S", 60), self.assertLogs("ciapp", "ERROR") as logged:
            thread = threading.Thread(target=self.outbox.deliver, args=(run.id, report))
            thread.start()
            eventually(lambda: "report cannot be kept on disk" in str(logged.output), "it is said")
            self.server.start()
            thread.join(30)
        self.assertIs(Status.PASSED, self.the_run().status)


class TestTrouble(unittest.TestCase):
    """Reports that wait beside what cannot be delivered."""

    def setUp(self) -> None:
        self.database = fresh_sqlite(self)
        self.database.migrate()
        self.folder = new_folder(self) / "outbox"
        self.outbox = Outbox(self.folder, self.database)
        push(self.database, add_repository(self.database), commit(1), commit(2))
        self.runs = [self.keep_report(1), self.keep_report(2)]

    def the_run(self, number: int) -> Run:
        [run] = find_runs(self.database, "team", [commit(number).id])
        return run

    def keep_report(self, number: int) -> int:
        """A run whose report waits; its id."""
        run = claim_run(self.database, self.the_run(number).id, attempt=1, worker="w#0")
        assert run is not None
        away = mock.patch.object(outbox, "save_report", side_effect=LedgerAwayError("away"))
        with away, mock.patch.object(outbox, "INSIST_S", 0):
            self.outbox.deliver(run.id, make_report(run, findings(), finished_at=datetime.now(UTC)))
        return run.id

    def statuses(self) -> list[Status | None]:
        return [self.the_run(number).status for number in (1, 2)]

    def names(self) -> list[str]:
        return sorted(file.name for file in self.folder.iterdir())

    def test_files_that_the_disk_gives_trouble_with_keep_no_report_waiting_and_are_said_once(self) -> None:
        (self.folder / "0-1.report").mkdir()
        (self.folder / "0-2.report").write_bytes(b"cut")
        (self.folder / "0-2.unreadable" / "not empty").mkdir(parents=True)  # it cannot be put aside
        with self.assertLogs("ciapp", "ERROR") as logged:
            self.assertEqual(2, self.outbox.deliver_waiting())
            self.assertEqual(2, self.outbox.deliver_waiting())

        self.assertEqual([Status.PASSED] * 2, self.statuses())
        self.assertEqual(["0-1.report", "0-2.report", "0-2.unreadable"], self.names())
        self.assertEqual(
            [f"0-{number}.report" for number in (1, 2)], [Path(each.file).name for each in logged.records]
        )

    def test_a_report_that_the_ledger_refuses_keeps_no_other_waiting(self) -> None:
        def refuse_first(database: Database, run_id: int, report: Report) -> bool:
            if run_id == self.runs[0]:
                raise LedgerError("value too long")
            return save_report(database, run_id, report)

        with mock.patch.object(outbox, "save_report", refuse_first):
            self.assertEqual(1, self.outbox.deliver_waiting())
        self.assertEqual([None, Status.PASSED], self.statuses())
        self.assertEqual(0, self.outbox.deliver_waiting())
        self.assertEqual([Status.PASSED] * 2, self.statuses())

    def test_a_database_that_is_away_is_asked_once(self) -> None:
        away = mock.Mock(side_effect=LedgerAwayError("away"))
        with mock.patch.object(outbox, "save_report", away):
            self.assertEqual(2, self.outbox.deliver_waiting())
        self.assertEqual(1, away.call_count)

    def test_drafts_of_processes_that_were_killed_go_and_those_of_others_stay(self) -> None:
        killed = subprocess.Popen(["sleep", "60"])
        killed.kill()
        killed.wait()
        for process in (killed.pid, os.getpid()):
            (self.folder / f"9-1.{process}").write_bytes(b"begun")
        self.outbox.deliver_waiting()
        self.assertEqual([f"9-1.{os.getpid()}"], self.names())

    def test_a_report_that_is_delivered_but_cannot_be_deleted_is_no_failure(self) -> None:
        refused = mock.patch.object(Path, "unlink", side_effect=PermissionError(13, "Permission denied"))
        with refused, self.assertLogs("ciapp", "ERROR"):
            self.assertEqual(2, self.outbox.deliver_waiting())
        self.assertEqual([Status.PASSED] * 2, self.statuses())


class TestWorker(unittest.TestCase):
    def test_a_run_that_finishes_while_the_database_is_away_has_one_attempt_and_one_report(self) -> None:
        server = PrivatePostgreSQL(self)
        ci = Installation(self, database=server.url)
        clone = ci.make_repository()
        ci.start_all()
        tested = ci.push_commit(clone, {"tests/test_a.py": SLOW})
        eventually(lambda: [run for run in ci.runs(tested) if run.tests_known], "the test runs")
        server.kill()
        eventually(
            lambda: list((ci.folder / "state" / "outbox").glob("*.report")), "the report waits on disk"
        )
        server.start()

        self.assertIs(Status.PASSED, ci.report(tested).status)
        [run] = ci.runs(tested)
        self.assertEqual((State.FINISHED, 1), (run.state, run.attempt))
        self.assertEqual(["reported"], [each.ending for each in list_attempts(ci.database, run.id)])
        eventually(lambda: not list((ci.folder / "state" / "outbox").iterdir()), "the outbox is empty")


if __name__ == "__main__":
    unittest.main()
