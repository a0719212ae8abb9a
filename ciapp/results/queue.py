"""Which runs are to be sent next, and which were sent and may have been lost.

In:  how many messages may be under way, and the dispatcher's own times.
Out: runs, best first.

The ledger holds the queue; the broker holds only as many messages as there are slots, and a few more. So
priority, fairness and cancelling work the same on every broker, and a broker that comes back empty has lost
little, which is sent again.

The order: a tip before a backlog before what was superseded; between repositories, the one with the fewest
runs under way; within one, oldest first. Each environment has a queue of its own at the broker, as not every
worker can take its runs; they all share this order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, Update, bindparam, func, or_, select, update

from ciapp.results import schema
from ciapp.results.database import Database, outlast_conflicts
from ciapp.results.matrix import DEFAULT
from ciapp.results.report import State
from ciapp.results.runs import RETRY_AFTER_S, Run, as_run, select_runs

RESEND_AFTER_S = 15.0  #: doubled with each message sent for one attempt
#: The same while a worker that could take the run has a free slot. RabbitMQ hands a worker messages of each
#: of its queues, so a busy one may hold what an idle one could begin.
RESEND_TO_IDLE_AFTER_S = 3.0
RESEND_AT_MOST_S = 600.0
#: The same for an idle worker: messages that it did not answer were mostly sent before it came, and one too
#: many costs it a question to the ledger.
RESEND_TO_IDLE_AT_MOST_S = 15.0


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs are where."""

    waiting: int  #: no message was sent for them yet
    sent: int  #: a message is under way
    running: int


def count_queues(database: Database) -> dict[str, QueueCounts]:
    """Environment → how many unfinished runs it has, by where they are; only those that have any."""
    found: dict[str, Counter[str]] = {}
    with database.read() as connection:
        for environment, state, sent, count in connection.execute(_unfinished()):
            place = "running" if state == State.RUNNING else "sent" if sent else "waiting"
            found.setdefault(environment, Counter())[place] += count
    return {environment: _as_counts(counter) for environment, counter in found.items()}


@cache
def _unfinished() -> Select[Any]:
    """How many there are of each environment, state, and with or without a message under way."""
    runs = schema.runs.c
    is_sent = runs.sent_token == runs.token + 1
    return (
        select(runs.environment, runs.state, is_sent, func.count())
        # Not "is not finished": no index helps with that, and nearly all runs are.
        .where(runs.state.in_((State.QUEUED, State.RUNNING)))
        .group_by(runs.environment, runs.state, is_sent)
    )


def total(counts: Mapping[str, QueueCounts]) -> QueueCounts:
    """What `count_queues` counted, all environments together."""
    found: Counter[str] = Counter()
    for one in counts.values():
        found.update(msgspec.structs.asdict(one))
    return _as_counts(found)


def unserved(counts: Mapping[str, QueueCounts], served: Container[str]) -> dict[str, int]:
    """Environment → how many runs of it wait though no worker takes them; the default one is left out."""
    return {
        environment: one.waiting + one.sent
        for environment, one in sorted(counts.items())
        if environment not in served and environment != DEFAULT and one.waiting + one.sent
    }


def _as_counts(counter: Mapping[str, int]) -> QueueCounts:
    return QueueCounts(waiting=counter["waiting"], sent=counter["sent"], running=counter["running"])


def next_runs(database: Database, limit: int, environments: Collection[str] | None = None) -> list[Run]:
    """At most `limit` runs of each environment to send a message for, best first; empty when none waits.

    `environments` are those to look at; None: all, and at most `limit` runs in all.
    """
    now = datetime.now(UTC)
    about = {"now": now, "soon": now + timedelta(seconds=max(RETRY_AFTER_S)), "limit": limit}
    found: dict[int, list[Run]] = {}
    with database.read() as connection:
        busy = Counter({int(key): int(count) for key, count in connection.execute(_under_way())})
        for repository_id, environment in connection.execute(_waiting_queues(), about).all():
            if environments is None or environment in environments:
                queue = {"of_repository": repository_id, "of_environment": environment}
                best = connection.execute(_best_waiting(), about | queue)
                found.setdefault(repository_id, []).extend(map(as_run, best))
    candidates = []
    for repository_id, its_runs in found.items():
        its_runs.sort(key=lambda run: (-run.priority, run.id))
        candidates += [
            (-run.priority, busy[repository_id] + place, run.id, run) for place, run in enumerate(its_runs)
        ]
    best_first = [run for *_, run in sorted(candidates, key=lambda candidate: candidate[:3])]
    return best_first if environments is not None else best_first[:limit]


@cache
def _under_way() -> Select[Any]:
    """How many runs of each repository are running, or have a message under way."""
    runs = schema.runs.c
    is_sent = (runs.state == State.QUEUED) & (runs.sent_token == runs.token + 1)
    return (
        select(runs.repository_id, func.count())
        .where(or_(runs.state == State.RUNNING, is_sent))
        .group_by(runs.repository_id)
    )


def _waits() -> tuple[ColumnElement[bool], ...]:
    """The condition that a run waits for a message, and need not wait any longer."""
    runs = schema.runs.c
    return (
        runs.state == State.QUEUED,
        runs.sent_token != runs.token + 1,
        or_(
            runs.not_before.is_(None),
            runs.not_before <= bindparam("now"),
            # A clock that was set back would keep it waiting for as long.
            runs.not_before > bindparam("soon"),
        ),
    )


@cache
def _waiting_queues() -> Select[Any]:
    """Repositories and environments of the runs that wait."""
    return select(schema.runs.c.repository_id, schema.runs.c.environment).where(*_waits()).distinct()


@cache
def _best_waiting() -> Select[Any]:
    """The first runs that wait of a repository and an environment."""
    runs = schema.runs.c
    return (
        select_runs()
        .where(
            *_waits(),
            runs.repository_id == bindparam("of_repository"),
            runs.environment == bindparam("of_environment"),
        )
        .order_by(runs.priority.desc(), runs.id)
        .limit(bindparam("limit"))
    )


@outlast_conflicts
def reserve_runs(database: Database, runs: Sequence[Run]) -> list[Run]:
    """Take it on to send messages for these runs; returns those that no other dispatcher took first."""
    now = datetime.now(UTC)
    reserved = []
    with database.write() as connection:
        for run in runs:
            known = {
                "of_run": run.id,
                "of_attempt": run.attempt,
                "of_sends": run.sends,
                "of_sent": run.sent_token,
            }
            sends = run.sends + 1 if run.sent_token == run.attempt + 1 else 1
            if connection.execute(_reserve(), known | {"next": sends, "at": now}).rowcount:
                reserved.append(run)
    return reserved


@cache
def _reserve() -> Update:
    """A queued run for whose latest attempt that many messages were sent has one more."""
    runs = schema.runs.c
    return (
        update(schema.runs)
        .where(
            runs.id == bindparam("of_run"),
            runs.token == bindparam("of_attempt"),
            runs.state == State.QUEUED,
            runs.sends == bindparam("of_sends"),
            runs.sent_token == bindparam("of_sent"),
        )
        .values(sends=bindparam("next"), sent_token=runs.token + 1, sent_at=bindparam("at"))
    )


@outlast_conflicts
def release_runs(database: Database, runs: Sequence[Run]) -> None:
    """Undo `reserve_runs`: the broker did not take the messages."""
    with database.write() as connection:
        for run in runs:
            connection.execute(
                update(schema.runs)
                .where(schema.runs.c.id == run.id, schema.runs.c.token == run.attempt)
                .values(sent_token=run.sent_token, sends=run.sends)
            )


def unanswered_runs(database: Database, idle: Collection[str] = ()) -> list[Run]:
    """Runs whose message was sent, and that no worker took for longer than a message is on its way.

    `idle` are environments that a worker with a free slot takes: there a message is on its way for less long.
    """
    runs = schema.runs.c
    now = datetime.now(UTC)
    soonest = timedelta(seconds=RESEND_TO_IDLE_AFTER_S if idle else RESEND_AFTER_S)
    query = select_runs().where(
        runs.state == State.QUEUED,
        runs.sent_token == runs.token + 1,
        or_(
            runs.sent_at <= now - soonest,
            # A clock that was set back would keep a lost message waiting.
            runs.sent_at > now + soonest,
        ),
    )
    with database.read() as connection:
        found = [as_run(row) for row in connection.execute(query.order_by(runs.id))]
    return [run for run in found if _is_unanswered(run, now, run.environment in idle)]


def _is_unanswered(run: Run, now: datetime, is_idle: bool) -> bool:
    after_s, at_most_s = RESEND_AFTER_S, RESEND_AT_MOST_S
    if is_idle:
        after_s, at_most_s = RESEND_TO_IDLE_AFTER_S, RESEND_TO_IDLE_AT_MOST_S
    patience_s = min(after_s * 2 ** min(run.sends - 1, 10), at_most_s)
    return run.sent_at is not None and abs((now - run.sent_at).total_seconds()) >= patience_s
