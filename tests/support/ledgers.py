"""Databases for tests: a fresh ledger on SQLite, and one on PostgreSQL where a server listens."""

from __future__ import annotations

import os
import tempfile
import unittest
import uuid
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from ciapp.git import Commit
from ciapp.results.database import Database
from ciapp.results.matrix import DEFAULT
from ciapp.results.pushes import KnownRepository, NewPush, Recorded, record_push
from ciapp.results.queue import QueueCounts, count_queues, total
from ciapp.results.registration import register_repository
from ciapp.results.report import Findings, Outcome, Status, TestResult
from tests.support.services import need

POSTGRESQL = os.environ.get("TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1/postgres")


def fresh_sqlite(test: unittest.TestCase) -> Database:
    """An empty SQLite ledger, gone after the test."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Database(f"sqlite:///{Path(folder.name) / 'ledger.sqlite3'}")


def fresh_postgresql_url(test: unittest.TestCase) -> str:
    """The URL of an empty PostgreSQL database, dropped after the test; skips where no server listens."""
    name = f"ciapp_test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
    except OperationalError as error:
        need("PostgreSQL", str(error.orig))

    def drop() -> None:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        engine.dispose()

    test.addCleanup(drop)
    return engine.url.set(database=name).render_as_string(hide_password=False)


def fresh_postgresql(test: unittest.TestCase) -> Database:
    """An empty PostgreSQL ledger, dropped after the test."""
    database = Database(fresh_postgresql_url(test))
    test.addCleanup(database.close)
    return database


def waits_for_a_lock(database: Database) -> bool:
    """Whether some transaction of a PostgreSQL ledger waits for another one."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with database.read() as connection:
        return bool(connection.scalar(text(f"{waiting} AND wait_event_type = 'Lock'")))


def commit(number: int, *, parents: tuple[str, ...] = (), subject: str = "") -> Commit:
    """A commit whose id tells its number."""
    return Commit(
        id=f"{number:040x}",
        tree=f"{number + 0xF000:040x}",
        parents=parents,
        author="Ann <ann@example.org>",
        subject=subject or f"Commit {number}",
        committed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def add_repository(database: Database, name: str = "team") -> KnownRepository:
    """A repository that the ledger knows."""
    return register_repository(database, name=name, host="here", git_dir=f"/srv/{name}.git", refs={})


def push(
    database: Database,
    repository: KnownRepository,
    *commits: Commit,
    ref: str = "refs/heads/main",
    tested: frozenset[str] | None = None,
    supersede: bool = False,
    environments: tuple[str, ...] = (DEFAULT,),
) -> Recorded:
    """Record a push of these commits, oldest first, to one branch."""
    news = NewPush(
        record=uuid.uuid4().hex,
        received_at=datetime.now(UTC),
        refs={ref: commits[-1].id},
        tips={commits[-1].id: (ref,)},
        tested=tested,
        superseding=frozenset({ref} if supersede else ()),
        environments=lambda tested: [environments] * len(tested),
    )
    return record_push(database, repository.id, news, commits)


def findings(status: Status = Status.PASSED) -> Findings:
    """What a run of one test found."""
    outcome = Outcome.PASSED if status is Status.PASSED else Outcome.FAILED
    return Findings(status=status, tests=(TestResult(id="test_a.TestA.test_a", outcome=outcome),))


def count_queue(database: Database) -> QueueCounts:
    """How many unfinished runs there are, by where they are."""
    return total(count_queues(database))
