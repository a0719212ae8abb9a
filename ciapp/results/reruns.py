"""Runs that somebody asks for once more.

In:  commits, and whether the result of another run may stand in for theirs.
Out: their runs queued again, under the fencing token that they had, or that a ledger which was restored since
     starts from (`ciapp.results.restores`): the next claim raises it.

A commit that has a result is tested anew: who asks again doubts that result, or what it was made with.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, case, select, update

from ciapp.results import schema
from ciapp.results.database import Database, outlast_conflicts
from ciapp.results.matrix import DEFAULT
from ciapp.results.pushes import new_run
from ciapp.results.report import State
from ciapp.results.restores import token_floor

#: What a new run's row lacks, and what trying it has left in this one.
UNDONE = ("status", "started_at", "finished_at", "duration_s", "not_before")
#: What a new run's row has, and this one keeps.
KEPT = {"repository_id", "commit", "environment", "push_id", "ref", "beat"}


@outlast_conflicts
def rerun(
    database: Database, repository_id: int, commit: str, environment: str = DEFAULT, *, fresh: bool = False
) -> bool:
    """Queue a commit's run again, or for the first time; False when it is waiting or running already.

    `fresh`: when it is the first time, or waits, no other run's result may stand in for it either.
    """
    runs = schema.runs.c
    mine = (runs.repository_id == repository_id, runs.commit == commit, runs.environment == environment)
    with database.write() as connection:
        first = new_run(
            repository_id,
            commit,
            environment=environment,
            queued_at=datetime.now(UTC),
            token=token_floor(connection),
            fresh=fresh,
        )
        while not connection.execute(database.insert_new(schema.runs).values(first)).rowcount:
            if fresh:
                unstarted = update(schema.runs).where(*mine, runs.state == State.QUEUED)
                connection.execute(unstarted.values(fresh=True))
            if _queue_again(connection, repository_id, [commit], environment):
                return True
            # PostgreSQL sees the row when it is inserted, and then waits for a purge that deletes it.
            if connection.execute(select(runs.id).where(*mine)).first() is not None:
                return False
        return True


@outlast_conflicts
def rerun_tested(database: Database, repository_id: int, commits: Sequence[str]) -> int:
    """Queue the finished runs of these commits again, in every environment; returns how many there are."""
    with database.write() as connection:
        return _queue_again(connection, repository_id, commits)


def _queue_again(
    connection: Connection, repository_id: int, commits: Sequence[str], environment: str | None = None
) -> int:
    runs = schema.runs.c
    wanted = [runs.repository_id == repository_id, runs.commit.in_(commits), runs.state == State.FINISHED]
    if environment is not None:
        wanted.append(runs.environment == environment)
    floor = token_floor(connection)
    anew = new_run(repository_id, "", queued_at=datetime.now(UTC), token=floor, fresh=True)
    again = {name: value for name, value in anew.items() if name not in KEPT}
    again |= {"token": case((runs.token < floor, floor), else_=runs.token)}
    changed = connection.execute(update(schema.runs).where(*wanted).values(again | dict.fromkeys(UNDONE)))
    return int(changed.rowcount)
