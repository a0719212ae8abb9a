"""What became of one test over many runs.

In:  runs, newest first, and a test's id or a part of it.
Out: each test that is meant, with its outcome in each of those runs.

Reports are read whole and their other tests are passed over, so the cost follows from the number of runs that
were asked about, never from how many the ledger holds; no table of outcomes has to be kept for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import select

from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.report import Outcome, State
from ciapp.results.runs import Run, as_run, select_runs
from ciapp.results.store import unpack_report

RUNS_AT_ONCE = 50


class PastOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a test did in one run."""

    commit: str
    subject: str
    environment: str
    finished_at: datetime | None
    outcome: Outcome
    duration_s: float | None
    message: str


class PastTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test, and what it did."""

    id: str
    ordinal: int
    outcomes: tuple[PastOutcome, ...]  #: in the order of the runs; none for a run that did not have the test

    @property
    def bad(self) -> int:
        """In how many of the runs its outcome was not good."""
        return sum(not one.outcome.is_good for one in self.outcomes)


def latest_runs(database: Database, repository_id: int, limit: int) -> list[Run]:
    """The runs of a repository that finished last, newest first."""
    runs = schema.runs.c
    query = (
        select_runs()
        .where(
            runs.repository_id == repository_id,
            runs.finished_at.is_not(None),
            runs.state == State.FINISHED,
        )
        .order_by(runs.finished_at.desc())
        .limit(limit)
    )
    with database.read() as connection:
        return [as_run(row) for row in connection.execute(query)]


def past_tests(database: Database, runs: Sequence[Run], wanted: str) -> list[PastTest]:
    """The test of that id, else all that have it in theirs, by id; runs without a report are passed over."""
    found: dict[tuple[str, int], list[PastOutcome]] = {}
    for start in range(0, len(runs), RUNS_AT_ONCE):
        chunk = runs[start : start + RUNS_AT_ONCE]
        documents = _documents(database, chunk)
        for run in chunk:
            for test in unpack_report(documents[run.id]).tests if run.id in documents else ():
                if wanted in test.id:
                    found.setdefault((test.id, test.ordinal), []).append(
                        PastOutcome(
                            commit=run.commit,
                            subject=run.subject,
                            environment=run.environment,
                            finished_at=run.finished_at,
                            outcome=test.outcome,
                            duration_s=test.duration_s,
                            message=test.message,
                        )
                    )
    exact = [key for key in found if key[0] == wanted]
    return [PastTest(id=key[0], ordinal=key[1], outcomes=tuple(found[key])) for key in sorted(exact or found)]


def _documents(database: Database, runs: Sequence[Run]) -> dict[int, bytes]:
    """The stored report of each run's latest attempt, by run."""
    reports = schema.reports.c
    query = (
        select(reports.run_id, reports.document)
        .join(schema.runs, schema.runs.c.id == reports.run_id)
        .where(
            reports.run_id.in_([run.id for run in runs]),
            reports.attempt == schema.runs.c.token,
            reports.accepted,
        )
    )
    with database.read() as connection:
        return {row.run_id: row.document for row in connection.execute(query)}
