"""What must hold when all is over, whatever went wrong on the way."""

from __future__ import annotations

import unittest
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import func, select

from ciapp.intake.spool import spool_folder
from ciapp.results import schema
from ciapp.results.attempts import REPORTED, Attempt, list_attempts
from ciapp.results.report import State, Status
from tests.support.git_repositories import git
from tests.support.installation import Installation, eventually
from tests.support.ledgers import count_queue


def assert_one_right_report_each(
    test: unittest.TestCase, ci: Installation, commits: Iterable[str], status: Status = Status.PASSED
) -> list[list[Attempt]]:
    """Each commit has one finished run, with one report, and each lost attempt says why; returns attempts."""
    found = []
    for commit in commits:
        report = ci.report(commit)
        [run] = ci.runs(commit)
        attempts = list_attempts(ci.database, run.id)
        said = f"{commit}: {[each.ending for each in attempts]}"
        test.assertEqual((State.FINISHED, status), (run.state, run.status), said)
        test.assertEqual((run.attempt, run.counts), (report.attempt, report.counts))
        test.assertEqual(list(range(1, run.attempt + 1)), [each.number for each in attempts])
        test.assertEqual([REPORTED], [each.ending for each in attempts if each.ending == REPORTED], said)
        test.assertEqual(REPORTED, attempts[-1].ending, said)
        test.assertTrue(all(each.ending and each.ended_at for each in attempts), said)
        with ci.database.read() as connection:
            accepted = select(func.count()).where(
                schema.reports.c.run_id == run.id, schema.reports.c.accepted
            )
            test.assertEqual(1, connection.scalar(accepted))
        found.append(attempts)
    return found


def assert_nothing_is_left(ci: Installation, *states: Path, repository: str = "team") -> None:
    """No spool record, pin, message under way, or report on a disk outlives the runs; waits for it.

    `states` are the state folders, by default the installation's own.
    """
    bare = ci.folder / f"{repository}.git"
    eventually(lambda: not list(spool_folder(bare).glob("[!.]*")), "the spool is empty")
    eventually(lambda: not list(spool_folder(bare).glob(".*.part")), "no spool record is half written")
    eventually(lambda: not git(bare, "for-each-ref", "refs/ciapp"), f"no commit is pinned: {ci.logs()}")
    counts = count_queue(ci.database)
    assert (counts.waiting, counts.sent, counts.running) == (0, 0, 0), counts
    for state in states or (ci.folder / "state",):
        outbox = state / "outbox"
        eventually(lambda outbox=outbox: not list(outbox.glob("*")), f"{outbox} is empty")
