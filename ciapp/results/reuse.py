"""A result that stands in for a run: the same tests of the same files passed, in the same surroundings.

In:  a fingerprint, which is a digest of all that a verdict depends on (`ciapp.testing.fingerprint`).
Out: the report of the run that showed it, without what its tests wrote; or None, and the tests are run.

A red commit must never turn green by this. So only a pass without a doubt stands for others: its tests ran in
one go, in the first attempt, without a warning. And one result that is no pass, of the same fingerprint, late
or accepted, says that the tests are flaky: from then on that fingerprint is tested each time. What the
fingerprint leaves out (the time of day, chance) decides no verdict of tests that mean anything, and whoever
wants to know asks for a fresh run.

The run that reuses a result has a report of its own, so it survives when the original is purged. It can then
stand for others in its place, and still names the run in which the tests were run. Where the parent commit
had tests that the result does not have, the tests are run too: that is a warning, and the original has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import msgspec
from sqlalchemy import Select, bindparam, select

from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.report import Evidence, Findings, Original, Report
from ciapp.results.store import unpack_report


def find_reusable(
    database: Database, fingerprint: str, known_tests: Iterable[tuple[str, int]]
) -> Report | None:
    """The report that may stand in for a run; None when the tests are to be run.

    `known_tests` are those of the parent commit. An empty fingerprint is nobody's.
    """
    if not fingerprint:
        return None
    about = {"fingerprint": fingerprint}
    with database.read() as connection:
        said = connection.scalars(_evidence(), about).all()
        if not said or Evidence.AGAINST in said:
            return None
        document = connection.scalar(_source(), about)
    if document is None:
        return None
    report = unpack_report(document)
    found = {(test.id, test.ordinal) for test in report.tests}
    return report if found.issuperset(known_tests) else None


@cache
def _evidence() -> Select[str]:
    """All that was said of a fingerprint."""
    reports = schema.reports.c
    return select(reports.evidence).where(reports.fingerprint == bindparam("fingerprint")).distinct()


@cache
def _source() -> Select[bytes]:
    """The best report that speaks for a fingerprint."""
    reports, runs = schema.reports.c, schema.runs.c
    return (
        select(reports.document)
        .join(schema.runs, (runs.id == reports.run_id) & (runs.token == reports.attempt))
        .where(reports.fingerprint == bindparam("fingerprint"), reports.evidence == Evidence.FOR)
        # A run whose tests were run comes before those that reuse its result.
        .order_by(runs.reused_from, reports.stored_at.desc())
        .limit(1)
    )


def reuse(report: Report) -> Findings:
    """What a run finds that reuses a report: all of it but what the tests wrote."""
    fields = {name: getattr(report, name) for name in Findings.__struct_fields__}
    fields["tests"] = tuple(msgspec.structs.replace(test, stdout="", stderr="") for test in report.tests)
    fields["output"] = ""
    fields["reused_from"] = report.reused_from or Original(
        commit=report.commit,
        attempt=report.attempt,
        worker=report.worker,
        finished_at=report.finished_at,
    )
    return Findings(**fields)
