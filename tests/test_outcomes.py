"""A test's outcomes over many runs, on SQLite and on PostgreSQL, and how they are shown."""

from __future__ import annotations

import json
import unittest
from datetime import UTC, datetime, timedelta
from typing import Any

from ciapp.results.database import Database
from ciapp.results.outcomes import latest_runs, past_tests
from ciapp.results.report import Findings, Status
from ciapp.results.runs import cancel_run, claim_run, find_runs
from ciapp.results.store import make_report, save_report
from ciapp.show import history_document, render_history
from tests.support.ledgers import add_repository, commit, fresh_postgresql, fresh_sqlite, push
from tests.support.reports import result


class OutcomeRules:
    """Mixed into a test case per database."""

    database: Database

    def finish(self, number: int, *tests: Any) -> None:
        """Test a commit; a larger number finishes later, whatever the order of the calls."""
        push(self.database, self.repository, commit(number))
        [run] = find_runs(self.database, self.repository.name, [commit(number).id])
        run = claim_run(self.database, run.id, attempt=1, worker="w#0")
        ended_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
        report = make_report(run, Findings(status=Status.PASSED, tests=tests), finished_at=ended_at)
        save_report(self.database, run.id, report)

    def filled(self) -> None:
        """Four runs, the third of which failed; a cancelled one; one of another repository."""
        self.repository = add_repository(self.database, "other")
        self.finish(9, result("failed", "t.A.test_a"))
        self.repository = add_repository(self.database)
        bad = result("failed", "t.A.test_a", message="AssertionError: \x1b[31m1 != 2", duration_s=0.41)
        self.finish(3, bad, result("passed", "t.A.test_a_b"))
        self.finish(1, result("passed", "t.A.test_a"), result("skipped", "t.A.test_a_b"))
        self.finish(4, result("passed", "t.A.test_a"), result("passed", "t.A.test_a_b"))
        self.finish(2, result("passed", "t.A.test_a"), result("failed", "t.A.test_a", ordinal=1))
        push(self.database, self.repository, commit(5))
        [run] = find_runs(self.database, "team", [commit(5).id])
        cancel_run(self.database, run.id)

    def outcomes(self, wanted: str, limit: int = 50) -> dict[tuple[str, int], list[tuple[int, str]]]:
        runs = latest_runs(self.database, self.repository.id, limit)
        return {
            (test.id, test.ordinal): [(int(one.commit, 16), one.outcome.value) for one in test.outcomes]
            for test in past_tests(self.database, runs, wanted)
        }

    def test_a_tests_outcomes_come_newest_first_from_its_own_repository(self):
        self.filled()
        self.assertEqual(
            {
                ("t.A.test_a", 0): [(4, "passed"), (3, "failed"), (2, "passed"), (1, "passed")],
                ("t.A.test_a", 1): [(2, "failed")],
            },
            self.outcomes("t.A.test_a"),
        )

    def test_a_part_of_an_id_means_every_test_that_has_it(self):
        self.filled()
        self.assertEqual(
            {("t.A.test_a_b", 0): [(4, "passed"), (3, "passed"), (1, "skipped")]}, self.outcomes("a_b")
        )
        self.assertEqual(3, len(self.outcomes("A.test")))
        self.assertEqual({}, self.outcomes("nothing"))

    def test_no_more_runs_are_read_than_were_asked_for(self):
        self.filled()
        self.assertEqual([(4, "passed"), (3, "failed")], self.outcomes("t.A.test_a", 3)["t.A.test_a", 0])

    def test_more_runs_than_are_read_at_once_keep_their_order(self):
        self.repository = add_repository(self.database)
        for number in range(1, 54):
            self.finish(number, result("passed", "t.A.test_a"))
        numbers = [number for number, _ in self.outcomes("t.A.test_a")["t.A.test_a", 0]]
        self.assertEqual([*range(53, 3, -1)], numbers)
        numbers = [number for number, _ in self.outcomes("t.A.test_a", 60)["t.A.test_a", 0]]
        self.assertEqual([*range(53, 0, -1)], numbers)

    def shown(self, wanted: str) -> list[str]:
        runs = latest_runs(self.database, self.repository.id, 3)
        return render_history(past_tests(self.database, runs, wanted), wanted, len(runs)).split("\n")

    def test_one_test_is_shown_with_a_line_per_run(self):
        self.filled()
        self.finish(6, result("crashed", "t.A.test_a_b", message="\x1b[31mSIGSEGV", duration_s=None))
        self.assertEqual(
            [
                "t.A.test_a_b: not good in 1 of 2 runs",
                "crashed            000000000000           Commit 6 (\\x1b[31mSIGSEGV)",
                "passed             000000000000   0.001s  Commit 4",
            ],
            self.shown("a_b"),
        )

    def test_several_tests_are_shown_with_a_letter_per_run_the_worst_first(self):
        self.filled()
        self.assertEqual(
            ["2 tests, the newest of 3 runs first", ".F t.A.test_a", ".. t.A.test_a_b"], self.shown("t.A")
        )
        self.assertEqual(
            ["no test of the last 3 runs has 'nothing' in its id; see `ciapp report`"], self.shown("nothing")
        )
        self.assertIn("of the last 1 run has", render_history([], "nothing", 1))

    def test_the_document_is_plain_json(self):
        self.filled()
        runs = latest_runs(self.database, self.repository.id, 3)
        document = json.loads(json.dumps(history_document("team", past_tests(self.database, runs, "a_b"))))
        [test] = document["tests"]
        self.assertEqual((1, "t.A.test_a_b"), (document["schema"], test["id"]))
        self.assertEqual(
            {
                "commit": commit(4).id,
                "subject": "Commit 4",
                "environment": "default",
                "finished_at": "2026-01-01T04:00:00Z",
                "outcome": "passed",
                "duration_s": 0.001,
                "message": "",
            },
            test["outcomes"][0],
        )


class TestSqlite(OutcomeRules, unittest.TestCase):
    def setUp(self):
        self.database = fresh_sqlite(self)
        self.database.migrate()

    def test_the_runs_that_finished_last_are_found_by_an_index(self):
        with self.database.read() as connection:
            plan = connection.exec_driver_sql(
                "EXPLAIN QUERY PLAN SELECT * FROM runs WHERE repository_id = 1 AND finished_at IS NOT NULL "
                "AND state = 'finished' ORDER BY finished_at DESC LIMIT 50"
            ).all()
        self.assertEqual(1, len(plan), "no sorting")
        self.assertIn("ix_runs_repository_id_finished_at", plan[0].detail)


class TestPostgresql(OutcomeRules, unittest.TestCase):
    def setUp(self):
        self.database = fresh_postgresql(self)
        self.database.migrate()


if __name__ == "__main__":
    unittest.main()
