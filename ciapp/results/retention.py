"""What the ledger lets go of: finished runs, with their attempts and reports.

In:  what is to be kept: for how long, how many runs of each repository, how many bytes of reports.
Out: fewer rows, oldest first, deleted in batches so short that nobody waits for long.

The hard idea is that what was let go of must not come back. Refs, pushes and commits stay, and a commit
remembers that a run of it was purged: a push that brings it once more asks for no other run (`record_push`),
while `ciapp rerun` still may. A run that has not finished and the runs of a ref's present value are never
purged: the next commit is compared with what its parent's report says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, delete, false, func, select, tuple_, update

from ciapp.results import schema
from ciapp.results.database import Database, outlast_conflicts
from ciapp.results.report import State
from ciapp.settings import RetentionSettings

HOLD_S = 0.025  #: how long one batch should keep other writers out; they are promised less than 0.1 s
PAUSE_S = 0.05  #: between batches; SQLite looks for the lock every 25 ms once it has waited for a while
MOST_RUNS, MOST_BYTES = 400, 4 << 20  #: of one batch, whatever its pace


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept. A run goes when none of `keep` and `keep_runs` that are given keeps it."""

    keep: timedelta | None = None  #: runs that finished within this time
    keep_runs: int | None = None  #: the runs of each repository that finished last
    max_bytes: int | None = None  #: of all reports; beyond it the oldest runs go, whatever else is said

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is said."""
        return self == Retention()


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge deleted, or with `dry_run` would."""

    runs: int = 0
    bytes: int = 0  #: of their reports
    is_complete: bool = True  #: False when time was up first


class Pace:
    """How many runs a batch takes, so that its transaction lasts about as long as it may.

    Deleting costs by the page: how many runs that is differs by reports, disks and databases.
    """

    def __init__(self) -> None:
        self.runs = 8

    def note(self, held_s: float) -> None:
        """Learn from the last batch's time."""
        if held_s > HOLD_S:
            self.runs = max(1, self.runs // 2)
        elif held_s < HOLD_S / 2:
            self.runs = min(MOST_RUNS, self.runs * 2)


class _Candidate(msgspec.Struct, frozen=True):
    """A finished run that may be deleted."""

    run_id: int
    size: int  #: bytes of its reports


def retention_of(settings: RetentionSettings) -> Retention:
    """What the settings ask for; 0 stands for "not limited" there."""
    return Retention(
        keep=timedelta(days=settings.keep_days) if settings.keep_days else None,
        keep_runs=settings.keep_runs or None,
        max_bytes=settings.max_mib << 20 if settings.max_mib else None,
    )


def purge(
    database: Database, retention: Retention, *, dry_run: bool = False, within_s: float | None = None
) -> Purged:
    """Delete the finished runs that `retention` does not keep; with `within_s`, as many as there is time for.

    Commands and workers go on meanwhile: each batch is a transaction of its own, with a pause after it.
    """
    began, deadline = datetime.now(UTC), time.monotonic() + (float("inf") if within_s is None else within_s)
    waiting = _doomed(database, retention, began)
    if dry_run:
        return Purged(runs=len(waiting), bytes=sum(one.size for one in waiting))
    runs = size = 0
    pace = Pace()
    while waiting:
        if time.monotonic() > deadline:
            return Purged(runs=runs, bytes=size, is_complete=False)
        batch = waiting[: _fitting([one.size for one in waiting[: pace.runs]])]
        if freed := _delete_first_reports(database, batch[0], began):
            waiting[0] = msgspec.structs.replace(batch[0], size=batch[0].size - freed)
            size += freed
        else:
            waiting = waiting[len(batch) :]
            deleted, held_s = _delete(database, [one.run_id for one in batch], began)
            runs += len(deleted)
            size += sum(one.size for one in batch if one.run_id in deleted)
            pace.note(held_s)
        if waiting:
            time.sleep(PAUSE_S)
    return Purged(runs=runs, bytes=size)


def stored_bytes(database: Database) -> int:
    """The size of all reports in the ledger."""
    with database.read() as connection:
        return _stored_bytes(connection)


def _doomed(database: Database, retention: Retention, now: datetime) -> list[_Candidate]:
    """The runs to delete, oldest first within each repository.

    The finished runs of a commit go together: what is left of them would be taken for all that it came to.
    """
    runs = schema.runs.c
    with database.read() as connection:
        rows = connection.execute(select(schema.refs.c.repository_id, schema.refs.c.value))
        tips = {(row.repository_id, row.value) for row in rows}
        doomed: dict[int, _Candidate] = {}
        for repository_id in connection.scalars(select(schema.repositories.c.id)).all():
            going = _not_kept(connection, repository_id, retention, now)
            query = _finished_runs().where(runs.repository_id == repository_id, *going)
            doomed |= {one.run_id: one for one in _candidates(connection, query, tips)}
        excess = 0
        if retention.max_bytes is not None:
            excess = _stored_bytes(connection) - retention.max_bytes
        together = _together(connection) if doomed or excess > 0 else {}
        going_ids = doomed.keys()
        doomed = {
            run_id: one
            for run_id, one in doomed.items()
            if all(other.run_id in going_ids for other in together.get(run_id, ()))
        }
        excess -= sum(one.size for one in doomed.values())
        if excess > 0:
            for one in _candidates(connection, _finished_runs(), tips):
                if excess <= 0:
                    break
                if one.run_id not in doomed:
                    group = together.get(one.run_id, [one])
                    doomed |= {each.run_id: each for each in group}
                    excess -= sum(each.size for each in group)
    return list(doomed.values())


def _together(connection: Connection) -> dict[int, list[_Candidate]]:
    """Run → all finished runs of its commit, itself included; only of commits that have several."""
    runs = schema.runs.c
    several = select(runs.repository_id, runs.commit).group_by(runs.repository_id, runs.commit)
    query = _finished_runs().where(
        tuple_(runs.repository_id, runs.commit).in_(several.having(func.count() > 1))
    )
    groups: dict[tuple[int, str], list[_Candidate]] = {}
    for run_id, repository_id, commit, size in connection.execute(query):
        groups.setdefault((repository_id, commit), []).append(_Candidate(run_id, int(size)))
    return {one.run_id: group for group in groups.values() for one in group}


def _not_kept(
    connection: Connection, repository_id: int, retention: Retention, now: datetime
) -> list[ColumnElement[bool]]:
    """The conditions that all hold for the runs of a repository that neither rule keeps."""
    runs = schema.runs.c
    conditions: list[ColumnElement[bool]] = []
    if retention.keep is not None:
        conditions.append(runs.finished_at <= now - retention.keep)
    if retention.keep_runs is not None:
        first = connection.execute(
            select(runs.finished_at, runs.id)
            .where(runs.repository_id == repository_id, runs.finished_at.is_not(None))
            .order_by(runs.finished_at.desc(), runs.id.desc())
            .offset(retention.keep_runs)
            .limit(1)
        ).one_or_none()
        if first is None:
            return [false()]
        same_time = (runs.finished_at == first.finished_at) & (runs.id <= first.id)
        conditions.append((runs.finished_at < first.finished_at) | same_time)
    return conditions or [false()]


def _finished_runs() -> Select[int, int, str, int]:
    """Id, repository, commit and bytes of reports of finished runs, in the order they finished."""
    runs, reports = schema.runs.c, schema.reports.c
    size = select(func.coalesce(func.sum(reports.size), 0)).where(reports.run_id == runs.id).scalar_subquery()
    return (
        select(runs.id, runs.repository_id, runs.commit, size)
        .where(runs.finished_at.is_not(None), runs.state == State.FINISHED)
        .order_by(runs.finished_at, runs.id)
    )


def _candidates(
    connection: Connection, query: Select[int, int, str, int], tips: set[tuple[int, str]]
) -> Iterator[_Candidate]:
    for run_id, repository_id, commit, size in connection.execute(query):
        if (repository_id, commit) not in tips:
            yield _Candidate(run_id, int(size))


def _fitting(sizes: Sequence[int]) -> int:
    """How many of these go into a batch: no more bytes than it may have, but at least one."""
    total = 0
    for number, size in enumerate(sizes):
        total += size
        if number and total > MOST_BYTES:
            return number
    return len(sizes)


@outlast_conflicts
def _delete(database: Database, run_ids: Sequence[int], began: datetime) -> tuple[set[int], float]:
    """Delete those of the runs that may still be deleted; returns them, and how long the lock was held."""
    commits = schema.commits.c
    deleted: set[int] = set()
    with database.write() as connection:
        locked_at = time.monotonic()
        for repository_id, going in _still_going(connection, run_ids, began):
            connection.execute(
                update(schema.commits)
                .where(commits.repository_id == repository_id, commits.commit.in_(going.values()))
                .values(purged_at=began)
            )
            deleted |= going.keys()
        # Attempts and reports go with their run.
        connection.execute(delete(schema.runs).where(schema.runs.c.id.in_(deleted)))
    # The commit counts: SQLite may take it for the moment to bring its write-ahead log into the database.
    return deleted, time.monotonic() - locked_at


@outlast_conflicts
def _delete_first_reports(database: Database, run: _Candidate, began: datetime) -> int:
    """Delete a batch's bytes of a run that has more; returns how many. A run's last report goes with it."""
    if run.size <= MOST_BYTES:
        return 0
    reports = schema.reports.c
    with database.write() as connection:
        if not any(going for _, going in _still_going(connection, [run.run_id], began)):
            return 0
        query = select(reports.attempt, reports.size).where(reports.run_id == run.run_id)
        rows = connection.execute(query.order_by(reports.attempt)).all()[:-1]
        first = rows[: _fitting([row.size for row in rows])]
        attempts = [row.attempt for row in first]
        connection.execute(
            delete(schema.reports).where(reports.run_id == run.run_id, reports.attempt.in_(attempts))
        )
    return sum(row.size for row in first)


def _still_going(
    connection: Connection, run_ids: Sequence[int], began: datetime
) -> Iterator[tuple[int, dict[int, str]]]:
    """Repository → those of the runs that may still be deleted, with their commits; locks them.

    Since they were chosen, a run may have been asked for again, and a ref may have moved to its commit.
    """
    runs, refs = schema.runs.c, schema.refs.c
    rows = connection.execute(
        select(runs.id, runs.repository_id, runs.commit)
        .where(runs.id.in_(run_ids), runs.state == State.FINISHED, runs.finished_at <= began)
        .order_by(runs.repository_id)
        .with_for_update()
    ).all()
    for repository_id, group in groupby(rows, key=lambda row: row.repository_id):
        found = {row.id: row.commit for row in group}
        named = select(refs.value).where(refs.repository_id == repository_id, refs.value.in_(found.values()))
        tips = set(connection.scalars(named))
        yield repository_id, {run_id: commit for run_id, commit in found.items() if commit not in tips}


def _stored_bytes(connection: Connection) -> int:
    return int(connection.scalar(select(func.coalesce(func.sum(schema.reports.c.size), 0))) or 0)
