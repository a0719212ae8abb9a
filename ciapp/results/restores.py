"""What a ledger that was restored goes on with, so that nobody takes the forgotten time for the present.

In:  a ledger that says what a backup says, and when that was made.
Out: unfinished runs queued again, and a row that says above which number attempts are counted from now on.

What happened after the backup is forgotten here, but workers remember: they beat for, and report on, attempts
that the ledger gives out once more, of runs whose numbers it gives out once more. The hard idea is a floor
that rises with each restore, by more than a run can have had attempts in the forgotten time. Runs that begin,
or that somebody asks for again, start from the highest floor. A run that had finished keeps the number of its
last attempt until then, by which its report is found.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, case, func, select, update

from ciapp.results import schema
from ciapp.results.report import State

#: Attempts that a run may have had in no time; beyond, it may have had one a second.
PASSED_OVER = 100
RESTORED = "the ledger was restored from a backup"


def token_floor(connection: Connection) -> int:
    """The token that runs start from, which no attempt has had: 0 in a ledger that was never restored."""
    return int(connection.scalar(select(func.coalesce(func.max(schema.restores.c.floor), 0))) or 0)


def highest_token(connection: Connection) -> int:
    """Nothing that this ledger has given out is above it."""
    given = connection.scalar(select(func.coalesce(func.max(schema.runs.c.token), 0)))
    return max(int(given or 0), token_floor(connection))


def raise_floor(connection: Connection, made_at: datetime, known: int = 0) -> int:
    """Note that the ledger was restored from a backup of that moment; returns the new floor.

    The time since then counts as well, so two restores of one backup have floors that are apart. `known` is
    what the ledger had given out that was replaced, as far as that is known.
    """
    now = datetime.now(UTC)
    forgotten_s = max(0, int((now - made_at).total_seconds()))
    floor = max(known, highest_token(connection)) + PASSED_OVER + forgotten_s
    connection.execute(schema.restores.insert().values(restored_at=now, made_at=made_at, floor=floor))
    return floor


def queue_unfinished_again(connection: Connection, floor: int) -> int:
    """Make runs that had not finished wait for their first attempt above the floor; returns how many."""
    runs, attempts = schema.runs.c, schema.attempts.c
    connection.execute(
        update(schema.attempts)
        .where(attempts.ending == "")
        .values(ending=RESTORED, ended_at=datetime.now(UTC))
    )
    was_running = runs.state == State.RUNNING
    changed = connection.execute(
        update(schema.runs)
        .where(runs.state != State.FINISHED)
        .values(
            state=State.QUEUED,
            token=floor,
            tries=case((was_running, runs.tries - 1), else_=runs.tries),
            reason=case((was_running, RESTORED), else_=runs.reason),
            worker="",
            not_before=None,
            sent_token=0,
            sends=0,
            tests_known=0,
            tests_done=0,
            tests_failed=0,
        )
    )
    return max(0, changed.rowcount)
