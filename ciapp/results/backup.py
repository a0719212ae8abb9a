"""The ledger as a file, and back: the same file for SQLite and for PostgreSQL.

In:  a ledger in use; or a backup of one.
Out: a backup that shows one instant; or a ledger that says what the backup says, and goes on from there.

The file is gzip of JSON lines: what it is and which columns follow; a line per row, its table's name first;
row counts and a SHA-256 of all lines before. Without that last line the file is cut, and is no backup.

What happened after the backup is forgotten here, but workers remember: `ciapp.results.restores` keeps them
out. Which of the forgotten commits are to be tested follows from the refs, as after any lost hook.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, DateTime, LargeBinary, MetaData, Table, func, select, text

from ciapp.errors import LedgerError, UsageError
from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.migrations import known_revisions, upgrade
from ciapp.results.restores import highest_token, queue_unfinished_again, raise_floor

#: What a backup holds, in an order in which rows can be inserted. Workers announce themselves anew.
TABLES = {str(table.name): table for table in schema.metadata.sorted_tables if table.name != "workers"}
ROWS_AT_ONCE, BYTES_AT_ONCE = 50, 8 << 20


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A backup's first line."""

    ciapp: Literal["ledger backup"] = "ledger backup"
    format: Literal[1] = 1
    revision: str  #: of the tables, as `ciapp.results.migrations` counts
    made_at: datetime
    columns: dict[str, tuple[str, ...]]  #: of each table, in the order of its rows' values


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """A backup's last line."""

    rows: dict[str, int]  #: per table
    sha256: str  #: of every byte before this line


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    made_at: datetime
    rows: dict[str, int]  #: per table
    requeued: int = 0  #: unfinished runs that a restore queued again


def back_up(database: Database, file: Path) -> Backup:
    """Write the ledger as it is now to a file; nobody waits for it, and nothing is written half.

    Raises UsageError when the file cannot be written.
    """
    header = Header(
        revision=schema.HEAD_REVISION,
        made_at=datetime.now(UTC),
        columns={name: tuple(str(column.name) for column in table.columns) for name, table in TABLES.items()},
    )
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        # Reports hold whatever tests have printed: for the owner's eyes alone.
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            rows = _write(database, header, out)
            os.fsync(out.fileno())
        draft.rename(file)
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}; give a file where there is room"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return Backup(made_at=header.made_at, rows=rows)


def restore(database: Database, file: Path, *, replace: bool = False) -> Backup:
    """Make the ledger what the backup says, in one transaction, and queue unfinished runs again.

    Raises UsageError for a ledger that is not empty, unless it is to be replaced; LedgerError for a backup
    that is damaged, or that a newer ciapp made.
    """
    with open_backup(file) as backup:
        if backup.header.revision not in known_revisions():
            raise LedgerError(
                f"{file} is of version {backup.header.revision}, made by a newer ciapp; "
                "install that version here"
            )
        for _ in backup.rows():  # all of it is read before anything is changed
            pass
    with open_backup(file) as backup, database.rebuild() as connection:
        if not replace and connection.scalar(select(func.count()).select_from(schema.repositories)):
            raise UsageError(
                f"ledger {database.address} is not empty; to lose what is in it, restore with --replace"
            )
        known = highest_token(connection)
        schema.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        upgrade(connection, database.address, backup.header.revision)
        rows = _insert(connection, backup)
        upgrade(connection, database.address)
        floor = raise_floor(connection, backup.header.made_at, known)
        requeued = queue_unfinished_again(connection, floor)
        if database.dialect == "postgresql":
            _continue_numbers(connection)
        return Backup(made_at=backup.header.made_at, rows=rows, requeued=requeued)


@contextmanager
def open_backup(file: Path) -> Iterator[BackupFile]:
    """A backup, its header read. Raises UsageError for a file that cannot be read."""
    try:
        lines = gzip.open(file)  # noqa: SIM115 # closed below
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}; give a backup") from error
    with lines:
        yield BackupFile(file, lines)


class BackupFile:
    """A backup that is being read. Raises LedgerError wherever it turns out to be none, or damaged."""

    def __init__(self, file: Path, lines: gzip.GzipFile) -> None:
        self._file = file
        self._lines = lines
        self._digest = hashlib.sha256()
        self.header: Header = self._decode(self._line(), Header)

    def rows(self) -> Iterator[tuple[str, list[Any]]]:
        """Each row's table and values. Raises LedgerError at the end unless everything was there."""
        found: Counter[str] = Counter()
        while True:
            digest = self._digest.hexdigest()
            line = self._line()
            if not line.startswith(b"["):
                break
            name, *values = self._decode(line, list[Any])
            if len(values) != len(self.header.columns.get(name, ())):
                raise self._damaged(f"a row of {name!r} has {len(values)} values")
            found[name] += 1
            yield name, values
        ending = self._decode(line, Ending)
        if (ending.sha256, ending.rows) != (digest, dict(found)):
            raise self._damaged("its checksum or its row counts are wrong")
        if self._readline():
            raise self._damaged("it goes on after its end")

    def _line(self) -> bytes:
        line = self._readline()
        if not line.endswith(b"\n"):
            raise self._damaged("it ends too early")
        self._digest.update(line)
        return line

    def _readline(self) -> bytes:
        """The next line; empty at the end, where gzip's own checksum is compared."""
        try:
            return self._lines.readline()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self._damaged(str(error)) from error

    def _decode(self, line: bytes, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, fact: str) -> LedgerError:
        return LedgerError(
            f"{self._file} is no whole backup: {fact}; nothing was changed, restore another one"
        )


def _write(database: Database, header: Header, out: Any) -> dict[str, int]:
    digest = hashlib.sha256()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=1) as lines:

        def write(value: object) -> None:
            line = msgspec.json.encode(value) + b"\n"
            digest.update(line)
            lines.write(line)

        write(header)
        rows: dict[str, int] = {}
        with database.read() as connection:
            if database.dialect == "postgresql":
                # SQLite's read transactions see one instant anyway.
                connection.execution_options(isolation_level="REPEATABLE READ")
            for name, table in TABLES.items():
                count = 0
                for row in _stored_rows(connection, table):
                    write([name, *row])
                    count += 1
                if count:
                    rows[name] = count
        write(Ending(rows=rows, sha256=digest.hexdigest()))
    return rows


def _stored_rows(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    query = select(table).order_by(*table.primary_key.columns)
    yield from connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})


def _insert(connection: Connection, backup: BackupFile) -> dict[str, int]:
    """Insert a backup's rows into the tables of its own version."""
    columns = backup.header.columns
    tables = MetaData()
    tables.reflect(connection, only=list(columns))
    for table in tables.tables.values():
        for column in table.columns:
            if isinstance(column.type, DateTime):
                column.type = schema.UtcDateTime()
    counts: Counter[str] = Counter()
    for name, batch in _batches(backup.rows()):
        table = tables.tables[name]
        connection.execute(table.insert(), [_typed(table, columns[name], values) for values in batch])
        counts[name] += len(batch)
    return dict(counts)


def _batches(rows: Iterator[tuple[str, list[Any]]]) -> Iterator[tuple[str, list[list[Any]]]]:
    """Rows of one table each, few enough to be held in memory."""
    batch: list[list[Any]] = []
    table, size = "", 0
    for name, values in rows:
        if batch and (name != table or len(batch) >= ROWS_AT_ONCE or size > BYTES_AT_ONCE):
            yield table, batch
            batch, size = [], 0
        table = name
        batch.append(values)
        size += sum(len(value) for value in values if isinstance(value, str))
    if batch:
        yield table, batch


def _typed(table: Table, names: Sequence[str], values: Sequence[Any]) -> Mapping[str, Any]:
    """A row of JSON types as its columns take it."""
    row = {}
    for name, value in zip(names, values, strict=True):
        kind = table.columns[name].type
        if value is not None and isinstance(kind, schema.UtcDateTime):
            value = msgspec.convert(value, datetime)
        elif value is not None and isinstance(kind, LargeBinary):
            value = msgspec.convert(value, bytes)
        row[name] = value
    return row


def _continue_numbers(connection: Connection) -> None:
    """PostgreSQL's sequences do not look at the rows that are there."""
    for name, table in TABLES.items():
        if "id" in table.columns:
            sequence = f"pg_get_serial_sequence('{name}', 'id')"
            connection.execute(
                text(f"SELECT setval({sequence}, (SELECT coalesce(max(id), 0) + 1 FROM {name}), false)")
            )
