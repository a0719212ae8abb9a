"""The connection to the ledger: SQLite in WAL mode, or PostgreSQL.

In:  a database URL.
Out: read and write transactions; a LedgerError of one sentence for whatever the database refuses.

The hard idea is SQLite's: a transaction that reads first and writes later fails at once when another wrote
in between, whatever the busy timeout. So a write transaction takes the write lock when it begins.

To build a statement takes several times as long as to execute it. Those that every run needs are therefore
built once, with parameters, by functions that are cached; `of_…` are what a row is found by.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, inspect, make_url, select, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import ConnectionPoolEntry

from ciapp.errors import LedgerAwayError, LedgerConflictError, LedgerError, SettingsError
from ciapp.results.forks import forget_at_fork, open_connection
from ciapp.results.schema import HEAD_REVISION

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")
BUSY_TIMEOUT_S = 30
CONFLICTS = 3  #: how often a transaction begins anew
#: How long each side of a connection to PostgreSQL believes in the other, which may be gone without a word.
#: By default the client waits for an answer for 15 minutes or two hours; and the server keeps what a vanished
#: worker has locked for as long, while everybody else waits for that.
CLIENT_PATIENCE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,  # ms
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
SERVER_PATIENCE = {
    "tcp_user_timeout": "10s",
    "tcp_keepalives_idle": "5s",
    "tcp_keepalives_interval": "2s",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "30s",
}
UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")  #: NUL, and surrogates: bytes that were not UTF-8
MIGRATION_LOCK = 0x63696170  #: PostgreSQL advisory lock: "ciap"


class Database:
    """The ledger's database. Connections are made on first use, and may be used after a fork."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError for a URL that SQLAlchemy cannot use."""
        try:
            self._url = make_url(url)
            self.engine = _make_engine(str(self._url.render_as_string(hide_password=False)))
            forget_at_fork(self.engine)
        except (ArgumentError, NoSuchModuleError) as error:
            raise SettingsError(
                f"database_url {url!r} is no database this ciapp knows; give sqlite:///FILE or postgresql://…"
            ) from error
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"database_url {self.address} needs the driver {error.name}; install ciapp[postgresql]"
            ) from error

    @property
    def address(self) -> str:
        """The database's URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def dialect(self) -> str:
        """The database's kind: sqlite or postgresql."""
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the ledger and changes nothing."""
        with open_connection(), self._said(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end of the block, or leaves no trace."""
        with open_connection(), self._said(), self.engine.connect() as connection:
            connection = connection.execution_options(ciapp_write=True, preserve_rowcount=True)
            with connection.begin():
                yield connection

    @contextmanager
    def rebuild(self) -> Iterator[Connection]:
        """A write transaction that may replace tables: SQLite follows no foreign key before its end.

        Else it would delete, with a table that is dropped, what belongs to its rows in other tables. Raises
        LedgerError, and leaves no trace, when a row would refer to one that is not there.
        """
        with open_connection(), self._said(), self.engine.connect() as connection:
            options = {"ciapp_write": True, "ciapp_rebuild": True, "preserve_rowcount": True}
            connection = connection.execution_options(**options)
            try:
                with connection.begin():
                    yield connection
                    self._check_references(connection)
            finally:
                connection.invalidate()  # whoever comes next has foreign keys again

    def _check_references(self, connection: Connection) -> None:
        if self.dialect == "sqlite":
            found = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            if found is not None:
                raise LedgerError(
                    f"ledger {self.address}: a row of {found[0]} would refer to one of {found[2]} that is"
                    " not there; nothing was changed, run `ciapp doctor`"
                )

    def insert_new(self, table: Table) -> Any:
        """An INSERT that passes over rows which are there already."""
        return _insert_new(self.dialect, table)

    def upsert(self, table: Table, keys: tuple[str, ...], changed: tuple[str, ...]) -> Any:
        """An INSERT that gives rows which are there already the new values of `changed`."""
        statement: Any = _insert(self.dialect, table)
        return statement.on_conflict_do_update(
            index_elements=list(keys), set_={name: statement.excluded[name] for name in changed}
        )

    def revision(self) -> str:
        """The migration the database is at; empty for an empty database."""
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return ""
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")

    def migrate(self) -> None:
        """Bring the tables to this ciapp's version; costs one query when they are there.

        Any number of processes may ask at once: one migrates, the others wait for it.
        Raises LedgerError when the database belongs to a newer ciapp.
        """
        revision = self.revision()
        if revision == HEAD_REVISION:
            return
        # Alembic is slow to import, and nearly every command finds its tables ready.
        from ciapp.results.migrations import upgrade

        with self.rebuild() as connection:
            if self.dialect == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            upgrade(connection, self.address)

    def now(self) -> datetime:
        """The time by the clock of the database's machine; aware, UTC."""
        with self.read() as connection:
            instant = connection.scalar(select(func.now()))
        assert isinstance(instant, datetime)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)

    def close(self) -> None:
        """Close idle connections."""
        self.engine.dispose()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise _kind_of(error)(
                f"ledger {self.address}: {_first_line(error.orig)}; run `ciapp doctor`"
            ) from error
        except SQLAlchemyError as error:
            raise LedgerError(f"ledger {self.address}: {_first_line(error)}; run `ciapp doctor`") from error


def outlast_conflicts(transaction: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """Let a function that is one transaction, and may be called again, begin anew when it meets a conflict.

    Of transactions that wait for each other, PostgreSQL ends one; then the others are through.
    """

    @wraps(transaction)
    def repeated(*args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        for _ in range(CONFLICTS):
            with suppress(LedgerConflictError):
                return transaction(*args, **kwargs)
        return transaction(*args, **kwargs)

    return repeated


def _kind_of(error: DBAPIError) -> type[LedgerError]:
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # above it, which kind of that error
        return LedgerAwayError if code == sqlite3.SQLITE_BUSY else LedgerError
    # "Transaction rollback": a deadlock, for one. The driver calls it operational, as it does a lost server.
    if str(getattr(error.orig, "sqlstate", "")).startswith("40"):
        return LedgerConflictError
    return LedgerAwayError if isinstance(error, OperationalError | InterfaceError) else LedgerError


@cache
def _insert_new(dialect: str, table: Table) -> Any:
    return _insert(dialect, table).on_conflict_do_nothing()


def _insert(dialect: str, table: Table) -> Any:
    # The other database's dialect, which nobody needs, takes 50 of the 570 ms in which a command is imported.
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


def stored_text(text: str) -> str:
    """Text that every database takes: other bytes than UTF-8, and NUL, as backslash escapes.

    Ref names cannot hold a backslash, so this keeps them apart from each other.
    """
    return UNSTORABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _make_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_engine(url, pool_pre_ping=True, pool_size=2, connect_args=CLIENT_PATIENCE)
        event.listen(engine, "connect", _bound_server_patience)
        return engine
    file = make_url(url).database
    if file and file != ":memory:":
        Path(file).parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    # Kept open between transactions: opening and closing cost as much as a transaction does.
    engine = create_engine(url, pool_size=2, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a spool record is deleted once its rows are durable
        connection.execute("PRAGMA foreign_keys = ON")
        # Debian's SQLite overwrites what is deleted, and keeps others out for as long as to write it takes.
        connection.execute("PRAGMA secure_delete = OFF")
        record.info["file"] = _which_file(file)

    @event.listens_for(engine, "checkout")
    def see_same_file(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        # What is written into a file that was moved away or replaced would be lost without a word.
        if record.info["file"] != _which_file(file):
            raise DisconnectionError(f"{file} is another file now")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        writes = options.get("ciapp_write")
        if options.get("ciapp_rebuild"):
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")  # in a transaction it would do nothing
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _which_file(file: str | None) -> tuple[int, int] | None:
    """What tells a file from another of the same name; None for one that is not there."""
    try:
        facts = Path(file or "").stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _bound_server_patience(connection: Any, _record: object) -> None:
    # Not in the connection's start-up options, which PgBouncer refuses.
    connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in SERVER_PATIENCE.items()))
    connection.commit()


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
