"""The attempts of a run: who tried, when, and how each ended.

In:  a run's id and an attempt's number.
Out: rows that are added by a claim (`ciapp.results.runs`) and ended once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import msgspec
from sqlalchemy import Connection, Update, bindparam, select, update

from ciapp.results import schema
from ciapp.results.database import Database, stored_text

REPORTED = "reported"  #: the ending of the attempt whose report is the run's


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's try at a run."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    ending: str  #: empty while it is open; "reported", or why it was lost


def list_attempts(database: Database, run_id: int) -> list[Attempt]:
    """A run's attempts, first to last."""
    query = select(schema.attempts).where(schema.attempts.c.run_id == run_id)
    with database.read() as connection:
        return [
            Attempt(
                number=row.number,
                worker=row.worker,
                started_at=row.started_at,
                ended_at=row.ended_at,
                ending=row.ending,
            )
            for row in connection.execute(query.order_by(schema.attempts.c.number))
        ]


def end_attempt(connection: Connection, run_id: int, attempt: int, ending: str) -> None:
    """Note how an attempt ended; one that has ended keeps its ending."""
    facts = {"at": datetime.now(UTC), "how": stored_text(ending)}
    connection.execute(_end(), {"of_run": run_id, "attempt": attempt, **facts})


@cache
def _end() -> Update:
    attempts = schema.attempts.c
    return (
        update(schema.attempts)
        .where(
            attempts.run_id == bindparam("of_run"),
            attempts.number == bindparam("attempt"),
            attempts.ending == "",
        )
        .values(ended_at=bindparam("at"), ending=bindparam("how"))
    )


def endings_before(connection: Connection, run_id: int, attempt: int, tries: int) -> str:
    """How the last tries before an attempt ended, as the beginning of a list: "first; second; "."""
    attempts = schema.attempts.c
    before = (
        select(attempts.ending)
        .where(attempts.run_id == run_id, attempts.number < attempt)
        .order_by(attempts.number.desc())
        .limit(tries - 1)
    )
    return "".join(f"{ending}; " for ending in reversed(connection.scalars(before).all()))
