"""A repository that the ledger is to know no more: its runs, reports, commits, pushes and refs.

In:  a repository whose hook is gone.
Out: no row of it. It goes in batches so short that nobody waits for long.

What a worker still delivers for a run that is gone is refused, as after `ciapp restore`.
"""

from __future__ import annotations

import time

import msgspec
from sqlalchemy import Column, Table, delete, select

from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.pushes import KnownRepository
from ciapp.results.report import State
from ciapp.results.retention import PAUSE_S, Pace
from ciapp.results.runs import cancel_run


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted."""

    commits: int
    runs: int


def forget(database: Database, repository: KnownRepository) -> Forgotten:
    """Delete a repository with all that is known of it; its unfinished runs are cancelled first."""
    runs, commits, pushes = schema.runs, schema.commits, schema.pushes
    with database.read() as connection:
        unfinished = connection.scalars(
            select(runs.c.id).where(runs.c.repository_id == repository.id, runs.c.state != State.FINISHED)
        ).all()
    for run_id in unfinished:
        cancel_run(database, run_id)
    deleted = {
        table: _delete_all(database, table, key, repository.id)
        for table, key in ((runs, runs.c.id), (commits, commits.c.commit), (pushes, pushes.c.id))
    }
    with database.write() as connection:
        # Its refs, and whatever came in meanwhile, go with it.
        connection.execute(delete(schema.repositories).where(schema.repositories.c.id == repository.id))
    return Forgotten(commits=deleted[commits], runs=deleted[runs])


def _delete_all(database: Database, table: Table, key: Column[int] | Column[str], repository_id: int) -> int:
    pace, number = Pace(), 0
    mine = table.c.repository_id == repository_id
    while True:
        with database.write() as connection:
            locked_at = time.monotonic()
            batch = connection.scalars(select(key).where(mine).limit(pace.runs)).all()
            connection.execute(delete(table).where(mine, key.in_(batch)))
        pace.note(time.monotonic() - locked_at)
        number += len(batch)
        if not batch:
            return number
        time.sleep(PAUSE_S)
