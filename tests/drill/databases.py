"""The databases of a drill, and what can happen to each.

In:  a kind (`sqlite`, `postgresql`) or a URL.
Out: a database; a private server where faults stop or kill it, none where it is somebody else's.
"""

from __future__ import annotations

import sqlite3
import time
import unittest
from contextlib import closing
from pathlib import Path

import psycopg

from tests.drill.brokers import Strike
from tests.support.network import Host
from tests.support.servers import PrivatePostgreSQL

DROP = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname <> ''"
)


class Backend:
    """A database, and the faults it can suffer."""

    server: PrivatePostgreSQL | None = None

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.faults: dict[str, Strike] = {}

    def prepare(self, state: Path) -> None:
        """Called once the state folder is known, before anything runs."""


class SqliteBackend(Backend):
    """A file in the state folder."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = {"database locked": self._lock}

    def prepare(self, state: Path) -> None:
        self._file = state / "ledger.sqlite3"

    def _lock(self, lasts_s: float) -> None:
        with closing(sqlite3.connect(self._file, isolation_level=None, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(lasts_s)
            connection.execute("ROLLBACK")


class PostgresqlBackend(Backend):
    """A cluster of the drill's own."""

    server: PrivatePostgreSQL

    def __init__(self, server: PrivatePostgreSQL) -> None:
        super().__init__(server.url)
        self.server = server
        self.faults = {
            "database away": self._away,
            "database killed": self._kill,
            "connections dropped": self._drop_connections,
            "tables locked": self._lock_tables,
        }

    def _away(self, lasts_s: float) -> None:
        self.server.stop()
        time.sleep(lasts_s)
        self.server.start()

    def _kill(self, _lasts_s: float) -> None:
        self.server.kill()
        self.server.start()

    def _drop_connections(self, _lasts_s: float) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(DROP)

    def _lock_tables(self, lasts_s: float) -> None:
        """As a migration does that takes its time: nobody reads either."""
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE runs, attempts, pushes IN ACCESS EXCLUSIVE MODE")
            time.sleep(lasts_s)
            connection.rollback()


def open_backend(holder: unittest.TestCase, name: str, host: Host | None = None) -> Backend:
    """The database that a command line names; `holder` ends what is started for it, on that host."""
    if name == "sqlite":
        return SqliteBackend()
    if name == "postgresql":
        return PostgresqlBackend(PrivatePostgreSQL(holder, host))
    return Backend(name)
