"""The workers that are there: what each said of itself when it was last heard of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import delete, select

from ciapp.results import schema
from ciapp.results.database import Database, stored_text
from ciapp.results.matrix import DEFAULT

BEAT_EVERY_S = 5.0
GONE_AFTER_S = 20.0  #: a worker that was silent for so long is not counted on


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One Celery worker."""

    name: str  #: Celery's node name: "celery@host"
    host: str
    slots: int  #: runs it tests at a time
    sandbox: str  #: the level that its runs get
    python: str  #: version of the interpreter that its runs get by default
    environments: tuple[str, ...] = (DEFAULT,)  #: whose runs it takes
    started_at: datetime
    seen_at: datetime
    hindrance: str = ""  #: why it takes no run now, in a sentence; empty: it takes them

    def is_here(self, now: datetime) -> bool:
        """Whether it was heard of lately. One from the future was so before the clock was set back."""
        return abs(now - self.seen_at) < timedelta(seconds=GONE_AFTER_S)


def worker_is_here(database: Database, worker: Worker) -> None:
    """Add a worker, or note that it is still there."""
    # By one clock for all hosts: theirs may be wrong.
    row = msgspec.structs.asdict(worker) | {"seen_at": database.now()}
    row["hindrance"] = stored_text(worker.hindrance)
    with database.write() as connection:
        changed = tuple(name for name in Worker.__struct_fields__ if name != "name")
        connection.execute(database.upsert(schema.workers, ("name",), changed).values(**row))


def worker_has_left(database: Database, name: str) -> None:
    """Forget a worker that stopped."""
    with database.write() as connection:
        connection.execute(delete(schema.workers).where(schema.workers.c.name == name))


def list_workers(database: Database) -> list[Worker]:
    """The workers that are there, by name."""
    now = database.now()
    with database.read() as connection:
        rows = connection.execute(select(schema.workers).order_by(schema.workers.c.name)).all()
    fields = Worker.__struct_fields__
    workers = [msgspec.convert({name: getattr(row, name) for name in fields}, Worker) for row in rows]
    return [worker for worker in workers if worker.is_here(now)]


def may_take(environment: str, workers: Iterable[Worker]) -> bool:
    """Whether somebody may begin a run of this environment now.

    Of those that take such runs, one that nothing hinders; without any, who starts takes the default ones.
    """
    able = [worker for worker in workers if environment in worker.environments]
    return any(not worker.hindrance for worker in able) if able else environment == DEFAULT


def served(workers: Iterable[Worker]) -> frozenset[str]:
    """The environments whose runs these workers take."""
    return frozenset(environment for worker in workers for environment in worker.environments)
