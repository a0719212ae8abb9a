"""The ledger's tables.

Two ideas carry them. A run is unique by repository, commit and environment, so recording a push twice
changes nothing. A run's `token` is its fencing token and the number of its latest attempt: each claim
raises it by one, and every later write of that attempt names it.

Reports are stored whole, as compressed JSON, one row per attempt: outcomes that do not change from run to
run cost no row each. Migrations (`ciapp/results/migrations`) make these tables; a test holds both together.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)

HEAD_REVISION = "0008"  #: the newest migration; what a usable database says of itself

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Id = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes, UTC on both sides; SQLite keeps them without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        instant: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return instant


repositories = Table(
    "repositories",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("host", Text, nullable=False),  # the machine that the repository and its hook are on
    Column("git_dir", Text, nullable=False),  # on that machine
    Column("registered_at", UtcDateTime, nullable=False),
)

refs = Table(
    "refs",
    metadata,
    Column("repository_id", Id, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    # As last seen by the intake; what an annotated tag names is the value of a row NAME^{}.
    Column("value", String(64), nullable=False),
    PrimaryKeyConstraint("repository_id", "name"),
)

pushes = Table(
    "pushes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("repository_id", Id, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("record", Text, nullable=False),  # the spool record's name; reading a record twice is one push
    Column("received_at", UtcDateTime, nullable=False),
    Column("pusher", Text, nullable=False),
    Column("options", JSON, nullable=False),  # list of push options, as given
    Column("pinned", Boolean, nullable=False),  # whether refs/ciapp/push/<id>/* may still exist
    UniqueConstraint("repository_id", "record"),
    Index(None, "pinned"),
)

commits = Table(
    "commits",
    metadata,
    Column("repository_id", Id, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("commit", String(64), nullable=False),
    Column("tree", String(64), nullable=False),
    Column("parents", Text, nullable=False),  # ids with spaces between; the first is the mainline
    Column("author", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("committed_at", UtcDateTime, nullable=False),
    Column("refs", JSON, nullable=False),  # full names of the refs whose push made this commit a tip
    Column("purged_at", UtcDateTime),  # when a run of it was last purged: no push asks for another one
    PrimaryKeyConstraint("repository_id", "commit"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("repository_id", Id, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("commit", String(64), nullable=False),
    Column("environment", Text, nullable=False),
    Column("push_id", Id, ForeignKey("pushes.id", ondelete="SET NULL")),
    Column("ref", Text, nullable=False),  # the ref whose push asked for the run; empty when several did
    Column("priority", Integer, nullable=False),  # higher goes first; see ciapp.results.queue
    Column("state", String(16), nullable=False),
    Column("status", String(16)),  # null until finished
    Column("reason", Text, nullable=False),
    Column("token", Integer, nullable=False),  # number of the latest attempt; 0 before the first
    Column("tries", Integer, nullable=False),  # attempts since it was last asked for
    Column("absences", Integer, nullable=False, server_default="0"),  # since then: its repository was away
    Column("queued_at", UtcDateTime, nullable=False),
    Column("not_before", UtcDateTime),  # of a run that waits after an attempt of its was lost
    Column("sent_token", Integer, nullable=False),  # the attempt that a message was last sent for
    Column("sent_at", UtcDateTime),
    Column("sends", Integer, nullable=False),  # messages sent for that attempt
    Column("worker", Text, nullable=False),
    Column("beat", Integer, nullable=False),  # raised by the worker while it holds the lease
    Column("beat_at", UtcDateTime),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("duration_s", Float),
    Column("counts", JSON, nullable=False),  # tests per outcome
    Column("tests_known", Integer, nullable=False),
    Column("tests_done", Integer, nullable=False),
    Column("tests_failed", Integer, nullable=False),
    Column("fresh", Boolean, nullable=False, server_default=false()),  # no result may stand in for it
    Column(
        "reused_from", String(64), nullable=False, server_default=""
    ),  # whose result it is, if not its own
    UniqueConstraint("repository_id", "commit", "environment"),
    Index(None, "state", "repository_id", "priority", "id"),
    Index(None, "push_id", "state"),
    Index(None, "repository_id", "finished_at"),
    # A number that was given out means one run for good: messages and reports on workers' disks name it.
    sqlite_autoincrement=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Id, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("ending", Text, nullable=False),  # empty while it is open; else "reported", or why it was lost
    PrimaryKeyConstraint("run_id", "number"),
)

reports = Table(
    "reports",
    metadata,
    Column("run_id", Id, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("accepted", Boolean, nullable=False),  # false: it came too late, and is kept as evidence
    Column("stored_at", UtcDateTime, nullable=False),
    Column("size", Integer, nullable=False, server_default="0"),  # of the document, in bytes
    Column("fingerprint", String(64), nullable=False, server_default=""),  # see ciapp.results.reuse
    Column("evidence", String(8), nullable=False, server_default=""),
    Column("document", LargeBinary, nullable=False),  # zlib of the report's JSON
    PrimaryKeyConstraint("run_id", "attempt"),
    Index(None, "run_id", "size"),  # adding up sizes must not read the documents
    Index(None, "fingerprint"),
)

restores = Table(
    "restores",
    metadata,
    Column("id", Id, primary_key=True),
    Column("restored_at", UtcDateTime, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),  # the backup
    Column("floor", Integer, nullable=False),  # every attempt that was begun later has a higher number
)

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),  # Celery's node name
    Column("host", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("sandbox", Text, nullable=False),
    Column("python", Text, nullable=False),  # of the default environment
    Column("environments", JSON, nullable=False, server_default='["default"]'),  # whose runs it takes
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("hindrance", Text, nullable=False, server_default=""),  # why it takes no run now, in a sentence
)
