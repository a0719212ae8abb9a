"""Reports in the ledger: stored whole, one per attempt, and given back.

In:  a run's id and its attempt's report.
Out: the run finished, in the same transaction; or, when the attempt is no longer the run's, the report kept
     beside it as evidence.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Select, Update, bindparam, func, select, update

from ciapp.results import schema
from ciapp.results.attempts import REPORTED, end_attempt
from ciapp.results.database import Database, outlast_conflicts, stored_text
from ciapp.results.report import Evidence, Findings, Report, State, count_outcomes
from ciapp.results.runs import Run, held


@outlast_conflicts
def save_report(database: Database, run_id: int, report: Report) -> bool:
    """Finish a run with what its attempt found; saving the same report again changes nothing.

    A report that comes after another attempt began, or after a cancel, is kept beside the run as evidence
    and False is returned. One whose run is gone, purged or from before a restore, is dropped: its number
    may by now be another commit's.
    """
    now = datetime.now(UTC)
    document = pack_report(report)
    with database.write() as connection:
        about = {
            "of_run": run_id,
            "of_commit": report.commit,
            "of_environment": report.environment,
            "of_repository": report.repo,
        }
        tries = connection.scalar(_tries(), about)
        if tries is None:
            return False
        found = {
            "of_run": run_id,
            "of_attempt": report.attempt,
            "new_status": report.status.value,
            "new_reason": stored_text(report.reason),
            "new_finished_at": report.finished_at or now,
            "new_duration_s": report.duration_s,
            "new_counts": report.counts,
            "tests": len(report.tests),
            "new_tests_failed": sum(not test.outcome.is_good for test in report.tests),
            "new_reused_from": report.reused_from.commit if report.reused_from else "",
        }
        accepted = bool(connection.execute(_finish(), found).rowcount)
        row = {
            "run_id": run_id,
            "attempt": report.attempt,
            "accepted": accepted,
            "stored_at": now,
            "size": len(document),
            "fingerprint": report.fingerprint,
            "evidence": _evidence(report, accepted, tries),
            "document": document,
        }
        stored = connection.execute(database.insert_new(schema.reports), row)
        end_attempt(connection, run_id, report.attempt, REPORTED if accepted else "reported too late")
        if stored.rowcount:
            return accepted
        return bool(
            connection.scalar(
                select(schema.reports.c.accepted).where(
                    schema.reports.c.run_id == run_id, schema.reports.c.attempt == report.attempt
                )
            )
        )


def _evidence(report: Report, accepted: bool, tries: int) -> Evidence:
    """What a report says of others: too late, or after lost attempts, a pass says nothing."""
    if report.evidence is Evidence.FOR and (not accepted or tries > 1):
        return Evidence.NONE
    return report.evidence


@cache
def _tries() -> Select[int]:
    """How often the run of a number was tried, if it is the report's own."""
    runs = schema.runs.c
    return (
        select(runs.tries)
        .select_from(schema.runs.join(schema.repositories))
        .where(
            runs.id == bindparam("of_run"),
            runs.commit == bindparam("of_commit"),
            runs.environment == bindparam("of_environment"),
            schema.repositories.c.name == bindparam("of_repository"),
        )
    )


@cache
def _finish() -> Update:
    """The run is finished, if it is still the attempt's."""
    found = ("status", "reason", "finished_at", "duration_s", "counts", "tests_failed", "reused_from")
    tests: Any = bindparam("tests")
    return (
        update(schema.runs)
        .where(*held(bindparam("of_run"), bindparam("of_attempt")))
        .values(
            state=State.FINISHED,
            tests_known=tests,
            tests_done=tests,
            **{name: bindparam(f"new_{name}") for name in found},
        )
    )


def make_report(run: Run, findings: Findings, *, finished_at: datetime) -> Report:
    """What an attempt found, with the run that it was about."""
    return Report(
        **{name: getattr(findings, name) for name in Findings.__struct_fields__},
        repo=run.repo,
        commit=run.commit,
        tree=run.tree,
        refs=run.refs,
        author=run.author,
        subject=run.subject,
        environment=run.environment,
        attempt=run.attempt,
        worker=run.worker,
        queued_at=run.queued_at,
        started_at=run.started_at,
        finished_at=finished_at,
        counts=count_outcomes(findings.tests),
    )


def report_on(database: Database, run: Run) -> Report | None:
    """What is to be said of a finished run; None while it has not finished.

    A run that ended without a report (cancelled, or all attempts lost) has one made from its row.
    """
    if run.status is None or run.finished_at is None:
        return None
    stored = load_report(database, run.id, run.attempt)
    if stored is not None and stored.status is run.status:
        return _with_original(database, stored)
    return make_report(run, Findings(status=run.status, reason=run.reason), finished_at=run.finished_at)


def _with_original(database: Database, report: Report) -> Report:
    """The report; of a reused result, with whether the original is still there."""
    original = report.reused_from
    if original is None:
        return report
    query = (
        select(func.count())
        .select_from(schema.reports.join(schema.runs).join(schema.repositories))
        .where(
            schema.repositories.c.name == report.repo,
            schema.runs.c.commit == original.commit,
            schema.runs.c.environment == report.environment,
            schema.reports.c.attempt == original.attempt,
        )
    )
    with database.read() as connection:
        is_kept = bool(connection.scalar(query))
    return msgspec.structs.replace(report, reused_from=msgspec.structs.replace(original, is_kept=is_kept))


def load_report(database: Database, run_id: int, attempt: int | None = None) -> Report | None:
    """The report of an attempt; without one, the latest accepted report. None when there is none."""
    query = select(schema.reports.c.document).where(schema.reports.c.run_id == run_id)
    if attempt is None:
        query = query.where(schema.reports.c.accepted).order_by(schema.reports.c.attempt.desc())
    else:
        query = query.where(schema.reports.c.attempt == attempt)
    with database.read() as connection:
        document = connection.scalar(query.limit(1))
        return unpack_report(document) if document is not None else None


class _Listed(msgspec.Struct, frozen=True):
    """Of a test in a report, what names it."""

    id: str
    ordinal: int = 0


class _Listing(msgspec.Struct, frozen=True):
    """Of a report, what it lists."""

    tests: tuple[_Listed, ...]


def listed_tests(
    database: Database, repository: str, commit: str, environment: str
) -> tuple[tuple[str, int], ...]:
    """Id and ordinal of each test in the latest accepted report on a commit; empty when there is none."""
    about = {"of_repository": repository, "of_commit": commit, "of_environment": environment}
    with database.read() as connection:
        document = connection.scalar(_accepted(), about)
    if document is None:
        return ()
    listing = msgspec.json.decode(zlib.decompress(document), type=_Listing)
    return tuple((test.id, test.ordinal) for test in listing.tests)


@cache
def _accepted() -> Select[bytes]:
    """The latest accepted report on a commit in an environment."""
    reports, runs = schema.reports.c, schema.runs.c
    return (
        select(reports.document)
        .select_from(schema.reports.join(schema.runs).join(schema.repositories))
        .where(
            schema.repositories.c.name == bindparam("of_repository"),
            runs.commit == bindparam("of_commit"),
            runs.environment == bindparam("of_environment"),
            reports.accepted,
        )
        .order_by(reports.attempt.desc())
        .limit(1)
    )


def pack_report(report: Report) -> bytes:
    """A report as the ledger and a worker's outbox keep it."""
    return zlib.compress(msgspec.json.encode(report), 1)


def unpack_report(document: bytes) -> Report:
    """The inverse of `pack_report`."""
    return msgspec.json.decode(zlib.decompress(document), type=Report)
