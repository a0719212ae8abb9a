"""Which commits are to be kept from git's garbage collection, and which pushes do so.

In:  a repository.
Out: the records of pushes that may have pins there, and of those whose runs have all ended; the commits of
     runs that no push keeps any more: they were asked for once more, or the ledger is a restored one.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update

from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.report import State


def settled_pushes(database: Database, repository_id: int) -> dict[int, str]:
    """Pushes whose tips may be pinned and whose runs have all ended: id → record."""
    open_runs = select(schema.runs.c.id).where(
        schema.runs.c.push_id == schema.pushes.c.id, schema.runs.c.state != State.FINISHED
    )
    query = select(schema.pushes.c.id, schema.pushes.c.record).where(
        schema.pushes.c.repository_id == repository_id, schema.pushes.c.pinned, ~open_runs.exists()
    )
    with database.read() as connection:
        return {int(push_id): str(record) for push_id, record in connection.execute(query)}


def pinned_pushes(database: Database, repository_id: int) -> dict[int, str]:
    """Pushes whose tips may be pinned: id → record."""
    query = select(schema.pushes.c.id, schema.pushes.c.record).where(
        schema.pushes.c.repository_id == repository_id, schema.pushes.c.pinned
    )
    with database.read() as connection:
        return {int(push_id): str(record) for push_id, record in connection.execute(query)}


def mark_unpinned(database: Database, push_ids: Sequence[int]) -> None:
    """Note that the pins of these pushes are gone from the repository."""
    with database.write() as connection:
        connection.execute(update(schema.pushes).where(schema.pushes.c.id.in_(push_ids)).values(pinned=False))


def unkept_commits(database: Database, repository_id: int) -> dict[str, tuple[str, ...]]:
    """Commits of unfinished runs whose push has no pins, each with its parents."""
    runs, commits, pushes = schema.runs, schema.commits, schema.pushes
    query = (
        select(commits.c.commit, commits.c.parents)
        .select_from(
            runs.join(
                commits,
                (commits.c.repository_id == runs.c.repository_id) & (commits.c.commit == runs.c.commit),
            ).outerjoin(pushes, pushes.c.id == runs.c.push_id)
        )
        .where(
            runs.c.repository_id == repository_id,
            # As in `ciapp.results.queue`: no index helps with "is not finished".
            runs.c.state.in_((State.QUEUED, State.RUNNING)),
            pushes.c.pinned.is_not(True),
        )
    )
    with database.read() as connection:
        return {commit: tuple(parents.split()) for commit, parents in connection.execute(query)}
