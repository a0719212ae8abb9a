"""Which pushes may have pins in their repository, which keep their commits from git's garbage collection.

In:  a repository.
Out: the records of those pushes, and of those whose runs have all ended.
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


def pinned_records(database: Database, repository_id: int) -> list[str]:
    """Records of the pushes whose tips may be pinned."""
    query = select(schema.pushes.c.record).where(
        schema.pushes.c.repository_id == repository_id, schema.pushes.c.pinned
    )
    with database.read() as connection:
        return [str(record) for record in connection.scalars(query)]


def mark_unpinned(database: Database, push_ids: Sequence[int]) -> None:
    """Note that the pins of these pushes are gone from the repository."""
    with database.write() as connection:
        connection.execute(update(schema.pushes).where(schema.pushes.c.id.in_(push_ids)).values(pinned=False))
