"""Repositories, their refs as last seen, and what each push brought: the ledger's first rows.

In:  a repository's name; a push, the commits that are new by it, and what the settings ask for each ref.
Out: rows, in one transaction: the push, its commits, one run per commit to test, the refs' new values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, delete, select

from ciapp.errors import UsageError
from ciapp.git import NULL_IDS, Commit
from ciapp.results import schema
from ciapp.results.database import Database, stored_text
from ciapp.results.matrix import DEFAULT
from ciapp.results.order import BACKLOG, DEFERRED, TIP, put_in_order
from ciapp.results.report import State
from ciapp.results.restores import token_floor

Item = TypeVar("Item")

#: After a tag's name: the commit that an annotated tag names, in a row of its own, as `git ls-remote` has it.
PEELED = "^{}"


class KnownRepository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository that the ledger knows."""

    id: int
    name: str
    host: str  #: the machine it is on
    git_dir: str  #: on that machine


#: Commits → the environments that each is tested in, at least one.
EnvironmentsOf = Callable[[Sequence[Commit]], Sequence[tuple[str, ...]]]


def default_alone(commits: Sequence[Commit]) -> list[tuple[str, ...]]:
    """Each commit in the default environment."""
    return [(DEFAULT,)] * len(commits)


class NewPush(msgspec.Struct, frozen=True, kw_only=True):
    """One push, or one finding of the reconciliation, as the ledger takes it."""

    record: str  #: unique in the repository; recording it again changes nothing
    received_at: datetime
    pusher: str = ""
    options: tuple[str, ...] = ()
    refs: Mapping[str, str]  #: every ref it changed → its new value; a null id for a deleted ref
    peeled: Mapping[str, str] = {}  #: of those that are not late, annotated tags → the commit behind each
    tips: Mapping[str, tuple[str, ...]]  #: commit → the refs that it was a value of
    #: Refs that have moved on, to what the ledger has seen of them already.
    late: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()  #: of the tips, those that all their refs have left: no longer urgent
    tested: frozenset[str] | None = None  #: of the new commits, those to test; None: all of them
    environments: EnvironmentsOf = default_alone
    superseding: frozenset[str] = frozenset()  #: refs of which only the newest value is urgent
    fresh: bool = False  #: whether no other run's result may stand in for those of its commits


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What recording a push added."""

    push_id: int  #: 0 when the record was there already
    commits: int = 0
    runs: int = 0


def find_repository(database: Database, name: str) -> KnownRepository:
    """The repository of that name. Raises UsageError when the ledger has none."""
    with database.read() as connection:
        row = connection.execute(
            select(schema.repositories).where(schema.repositories.c.name == name)
        ).one_or_none()
        if row is None:
            known = list(connection.scalars(select(schema.repositories.c.name).limit(20)))
            there = f"it knows {', '.join(sorted(known))}" if known else "it knows none yet"
            raise UsageError(
                f"the ledger knows no repository {name!r} ({there}); add it with `ciapp hook install`"
            )
        return as_repository(row)


def list_repositories(database: Database, host: str | None = None) -> list[KnownRepository]:
    """All repositories, or those on one host, by name."""
    query = select(schema.repositories).order_by(schema.repositories.c.name)
    if host is not None:
        query = query.where(schema.repositories.c.host == host)
    with database.read() as connection:
        return [as_repository(row) for row in connection.execute(query)]


def seen_refs(database: Database, repository_id: int) -> dict[str, str]:
    """Each ref's last seen value, names as `stored_text` has them."""
    query = select(schema.refs.c.name, schema.refs.c.value).where(
        schema.refs.c.repository_id == repository_id, ~schema.refs.c.name.endswith(PEELED, autoescape=True)
    )
    with database.read() as connection:
        return {row.name: row.value for row in connection.execute(query)}


def has_push(database: Database, repository_id: int, record: str) -> bool:
    """Whether a spool record's push is in the ledger."""
    query = select(schema.pushes.c.id).where(
        schema.pushes.c.repository_id == repository_id, schema.pushes.c.record == record
    )
    with database.read() as connection:
        return connection.execute(query).first() is not None


def has_commit(database: Database, repository_id: int, commit: str) -> bool:
    """Whether a push brought this commit, to be tested or not."""
    commits = schema.commits.c
    query = select(commits.commit).where(commits.repository_id == repository_id, commits.commit == commit)
    with database.read() as connection:
        return connection.execute(query).first() is not None


def record_push(
    database: Database,
    repository_id: int,
    push: NewPush,
    commits: Iterable[Commit],
) -> Recorded:
    """Write a push with its new commits (oldest first) and their runs, all or nothing.

    Commits and runs that are there already stay as they are, and a commit whose run was purged gets no
    other one. But the order changes: unstarted runs that an earlier push of the same ref asked for move back
    to the backlog, those of a superseding ref behind everything else; what is a tip now comes first. A push
    that is told late changes nothing of that.
    """
    refs = {stored_text(name): value for name, value in push.refs.items()}
    moved = {name: value for name, value in push.refs.items() if name not in push.late}
    current = {commit: named for commit, named in push.tips.items() if commit not in push.left}
    with database.write() as connection:
        added = connection.execute(
            database.insert_new(schema.pushes)
            .values(
                repository_id=repository_id,
                record=push.record,
                received_at=push.received_at,
                pusher=stored_text(push.pusher),
                options=[stored_text(option) for option in push.options],
                pinned=bool(push.tips),
            )
            .returning(schema.pushes.c.id)
        ).scalar()
        if added is None:
            return Recorded(push_id=0)
        put_in_order(connection, repository_id, moved, current, push.superseding)
        ref = next(iter(refs)) if len(refs) == 1 else ""
        new_commits = new_runs = 0
        for batch in _batches(commits):
            new_commits += _insert_commits(database, connection, repository_id, push, batch)
            new_runs += _insert_runs(database, connection, repository_id, int(added), ref, push, batch)
        store_refs(database, connection, repository_id, moved, push.peeled)
        return Recorded(push_id=int(added), commits=new_commits, runs=new_runs)


def _insert_commits(
    database: Database, connection: Connection, repository_id: int, push: NewPush, batch: Sequence[Commit]
) -> int:
    rows = [
        {
            "repository_id": repository_id,
            "commit": commit.id,
            "tree": commit.tree,
            "parents": " ".join(commit.parents),
            "author": stored_text(commit.author),
            "subject": stored_text(commit.subject),
            "committed_at": commit.committed_at,
            "refs": [stored_text(ref) for ref in push.tips.get(commit.id, ())],
        }
        for commit in batch
    ]
    return max(0, connection.execute(database.insert_new(schema.commits), rows).rowcount)


def _insert_runs(
    database: Database,
    connection: Connection,
    repository_id: int,
    push_id: int,
    ref: str,
    push: NewPush,
    batch: Sequence[Commit],
) -> int:
    now = datetime.now(UTC)
    commits = schema.commits.c
    purged = set(
        connection.scalars(
            select(commits.commit).where(
                commits.repository_id == repository_id,
                commits.commit.in_([commit.id for commit in batch]),
                commits.purged_at.is_not(None),
            )
        )
    )
    tested = [
        commit
        for commit in batch
        if commit.id not in purged and (push.tested is None or commit.id in push.tested)
    ]
    rows, floor = [], token_floor(connection)
    for commit, environments in zip(tested, push.environments(tested) if tested else (), strict=True):
        tip_refs = push.tips.get(commit.id, ())
        rows += [
            new_run(
                repository_id,
                commit.id,
                environment=environment,
                push_id=push_id,
                ref=ref or (stored_text(tip_refs[0]) if tip_refs else ""),
                priority=_priority(push, commit.id),
                queued_at=now,
                token=floor,
                fresh=push.fresh,
            )
            for environment in environments
        ]
    if not rows:
        return 0
    return max(0, connection.execute(database.insert_new(schema.runs), rows).rowcount)


def _priority(push: NewPush, commit: str) -> int:
    """How urgent a new commit's run is: what a superseding ref has left already is behind everything else."""
    if commit in push.tips and commit not in push.left:
        return TIP
    refs = push.tips.get(commit) or (push.refs if push.refs.keys() <= push.late else ())
    return DEFERRED if refs and push.superseding.issuperset(refs) else BACKLOG


def new_run(
    repository_id: int,
    commit: str,
    *,
    queued_at: datetime,
    token: int,
    environment: str = DEFAULT,
    push_id: int | None = None,
    ref: str = "",
    priority: int = TIP,
    fresh: bool = False,
) -> dict[str, Any]:
    """The row of a run that nobody has tried yet; `token` is the ledger's floor."""
    return {
        "repository_id": repository_id,
        "commit": commit,
        "environment": environment,
        "push_id": push_id,
        "ref": ref,
        "priority": priority,
        "state": State.QUEUED.value,
        "reason": "",
        "token": token,
        "tries": 0,
        "absences": 0,
        "queued_at": queued_at,
        "sent_token": 0,
        "sends": 0,
        "worker": "",
        "beat": 0,
        "counts": {},
        "tests_known": 0,
        "tests_done": 0,
        "tests_failed": 0,
        "fresh": fresh,
        "reused_from": "",
    }


def store_refs(
    database: Database,
    connection: Connection,
    repository_id: int,
    refs: Mapping[str, str],
    peeled: Mapping[str, str],
) -> None:
    """Note what these refs name now (a null id: nothing any more), and the commits behind annotated tags."""
    values = {stored_text(name): value for name, value in refs.items()}
    behind = {stored_text(name) + PEELED: commit for name, commit in peeled.items()}
    changed = [
        {"repository_id": repository_id, "name": name, "value": value}
        for name, value in (values | behind).items()
        if value not in NULL_IDS
    ]
    if changed:
        connection.execute(database.upsert(schema.refs, ("repository_id", "name"), ("value",)), changed)
    gone = [name for name, value in values.items() if value in NULL_IDS]
    # A branch never names a tag.
    gone += [name + PEELED for name in values if not name.startswith("refs/heads/")]
    for batch in _batches(name for name in gone if name not in behind):
        connection.execute(
            delete(schema.refs).where(
                schema.refs.c.repository_id == repository_id, schema.refs.c.name.in_(batch)
            )
        )


def _batches(items: Iterable[Item], size: int = 500) -> Iterator[tuple[Item, ...]]:
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch


def as_repository(row: Row[Any]) -> KnownRepository:
    """A row of `schema.repositories`."""
    return KnownRepository(id=row.id, name=row.name, host=row.host, git_dir=row.git_dir)
