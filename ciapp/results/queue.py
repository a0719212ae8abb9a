"""Which runs are to be sent next, and which were sent and may have been lost.

In:  how many messages may be under way, and the dispatcher's own times.
Out: runs, best first.

The ledger holds the queue; the broker holds only as many messages as there are slots, and a few more. So
priority, fairness and cancelling work the same on every broker, and a broker that comes back empty has lost
little, which is sent again.

The order: a tip before a backlog before what was superseded; between repositories, the one with the fewest
runs under way; within one, oldest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import func, or_, select, update

from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.report import State
from ciapp.results.runs import Run, as_run, select_runs

RESEND_AFTER_S = 15.0  #: doubled with each message sent for one attempt
RESEND_AT_MOST_S = 600.0


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs are where."""

    waiting: int  #: no message was sent for them yet
    sent: int  #: a message is under way
    running: int


def count_queue(database: Database) -> QueueCounts:
    """How many unfinished runs there are, by where they are."""
    runs = schema.runs.c
    is_sent = runs.sent_token == runs.token + 1
    query = (
        select(runs.state, is_sent, func.count())
        # Not "is not finished": no index helps with that, and nearly all runs are.
        .where(runs.state.in_((State.QUEUED, State.RUNNING)))
        .group_by(runs.state, is_sent)
    )
    found: Counter[str] = Counter()
    with database.read() as connection:
        for state, sent, count in connection.execute(query):
            found["running" if state == State.RUNNING else "sent" if sent else "waiting"] += count
    return QueueCounts(waiting=found["waiting"], sent=found["sent"], running=found["running"])


def next_runs(database: Database, limit: int) -> list[Run]:
    """At most `limit` runs to send a message for, best first; empty when none waits."""
    runs = schema.runs.c
    now = datetime.now(UTC)
    waits = (
        runs.state == State.QUEUED,
        runs.sent_token != runs.token + 1,
        or_(runs.not_before.is_(None), runs.not_before <= now),
    )
    under_way = (
        select(runs.repository_id, func.count())
        .where(
            or_(
                runs.state == State.RUNNING,
                (runs.state == State.QUEUED) & (runs.sent_token == runs.token + 1),
            )
        )
        .group_by(runs.repository_id)
    )
    with database.read() as connection:
        busy: Counter[int] = Counter({int(key): int(count) for key, count in connection.execute(under_way)})
        candidates = []
        for repository_id in connection.scalars(select(runs.repository_id).where(*waits).distinct()).all():
            best = (
                select_runs()
                .where(*waits, runs.repository_id == repository_id)
                .order_by(runs.priority.desc(), runs.id)
                .limit(limit)
            )
            for place, row in enumerate(connection.execute(best)):
                run = as_run(row)
                candidates.append((-run.priority, busy[repository_id] + place, run.id, run))
    return [run for *_, run in sorted(candidates, key=lambda candidate: candidate[:3])][:limit]


def reserve_runs(database: Database, runs: Sequence[Run]) -> list[Run]:
    """Take it on to send messages for these runs; returns those that no other dispatcher took first."""
    columns = schema.runs.c
    now = datetime.now(UTC)
    reserved = []
    with database.write() as connection:
        for run in runs:
            taken = connection.execute(
                update(schema.runs)
                .where(
                    columns.id == run.id,
                    columns.token == run.attempt,
                    columns.state == State.QUEUED,
                    columns.sends == run.sends,
                    columns.sent_token == run.sent_token,
                )
                .values(
                    sends=run.sends + 1 if run.sent_token == run.attempt + 1 else 1,
                    sent_token=run.attempt + 1,
                    sent_at=now,
                )
            )
            if taken.rowcount:
                reserved.append(run)
    return reserved


def release_runs(database: Database, runs: Sequence[Run]) -> None:
    """Undo `reserve_runs`: the broker did not take the messages."""
    with database.write() as connection:
        for run in runs:
            connection.execute(
                update(schema.runs)
                .where(schema.runs.c.id == run.id, schema.runs.c.token == run.attempt)
                .values(sent_token=run.sent_token, sends=run.sends)
            )


def unanswered_runs(database: Database) -> list[Run]:
    """Runs whose message was sent, and that no worker took for longer than a message is on its way."""
    runs = schema.runs.c
    now = datetime.now(UTC)
    query = select_runs().where(
        runs.state == State.QUEUED,
        runs.sent_token == runs.token + 1,
        or_(
            runs.sent_at <= now - timedelta(seconds=RESEND_AFTER_S),
            # A clock that was set back would keep a lost message waiting.
            runs.sent_at > now + timedelta(seconds=RESEND_AFTER_S),
        ),
    )
    with database.read() as connection:
        found = [as_run(row) for row in connection.execute(query.order_by(runs.id))]
    return [run for run in found if _is_unanswered(run, now)]


def _is_unanswered(run: Run, now: datetime) -> bool:
    patience_s = min(RESEND_AFTER_S * 2 ** min(run.sends - 1, 10), RESEND_AT_MOST_S)
    return run.sent_at is not None and abs((now - run.sent_at).total_seconds()) >= patience_s
