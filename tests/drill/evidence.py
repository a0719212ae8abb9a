"""What the ledger has on one run, for the judgement: taken before the run is purged, or at the end."""

from __future__ import annotations

import msgspec
from sqlalchemy import func, select

from ciapp.results import schema
from ciapp.results.attempts import Attempt, list_attempts
from ciapp.results.database import Database
from ciapp.results.report import Report
from ciapp.results.runs import Run
from ciapp.results.store import load_report


class Evidence(msgspec.Struct, frozen=True):
    """A run, and all that belongs to it."""

    run: Run
    attempts: list[Attempt]
    accepted: int  #: how many of its reports were accepted
    report: Report | None  #: the latest of these


def gather(database: Database, run: Run) -> Evidence:
    """The evidence on a run. Raises LedgerError."""
    reports = schema.reports.c
    query = select(func.count()).where(reports.run_id == run.id, reports.accepted)
    with database.read() as connection:
        accepted = connection.scalar(query) or 0
    return Evidence(run, list_attempts(database, run.id), accepted, load_report(database, run.id))
