"""A repository's place in the ledger: one name for one git directory.

In:  a name, a host, and a git directory on it.
Out: the repository's row, made, found, renamed or moved.

A git directory that had two rows would have each push recorded under both: the spool file goes with the first
who reads it, and takes the push options along; and each of the two would drop the other's pins. So a known
directory, whatever path leads to it, keeps its row under a new name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select, text, update

from ciapp.errors import UsageError
from ciapp.results import schema
from ciapp.results.database import Database, stored_text
from ciapp.results.pushes import KnownRepository, as_repository, list_repositories, store_refs


def names_of(database: Database, *, host: str, git_dir: str) -> list[str]:
    """The names of a git directory: none or one, or several in a ledger that an older ciapp wrote."""
    known = list_repositories(database, host)
    return [one.name for one in known if _is_same_folder(one.git_dir, git_dir)]


def check_name(database: Database, *, name: str, host: str, git_dir: str, moved: bool = False) -> None:
    """Raises UsageError when a repository cannot have this name: it belongs to another, not `moved` here."""
    with database.read() as connection:
        _find_row(connection, name, host, git_dir, moved)


def register_repository(
    database: Database,
    *,
    name: str,
    host: str,
    git_dir: str,
    refs: Mapping[str, str],
    peeled: Mapping[str, str] | None = None,
    moved: bool = False,
) -> KnownRepository:
    """Add a repository whose present refs count as seen; `peeled` as in `NewPush`.

    One that is known keeps its runs and what was seen of it, under the name that is given now.
    Raises UsageError as `check_name` does.
    """
    with database.write() as connection:
        if database.dialect == "postgresql":
            # Of two who take the same repository in at once, one is to see the other's row.
            connection.execute(text("LOCK TABLE repositories IN SHARE ROW EXCLUSIVE MODE"))
        row = _find_row(connection, name, host, git_dir, moved)
        repositories = schema.repositories.c
        place = {"name": name, "host": host, "git_dir": git_dir}
        if row is not None:
            connection.execute(update(schema.repositories).where(repositories.id == row.id).values(**place))
            _learn_peeled(database, connection, row.id, refs, peeled or {})
            return KnownRepository(id=row.id, **place)
        connection.execute(schema.repositories.insert().values(**place, registered_at=datetime.now(UTC)))
        row = connection.execute(select(schema.repositories).where(repositories.name == name)).one()
        store_refs(database, connection, row.id, refs, peeled or {})
        return as_repository(row)


def _learn_peeled(
    database: Database,
    connection: Connection,
    repository_id: int,
    refs: Mapping[str, str],
    peeled: Mapping[str, str],
) -> None:
    """Note the commits behind annotated tags that an older ciapp recorded; other tags come as pushes."""
    seen = schema.refs.c
    query = select(seen.name, seen.value).where(seen.repository_id == repository_id)
    values = {row.name: row.value for row in connection.execute(query)}
    same = {name: refs[name] for name in peeled if values.get(stored_text(name)) == refs[name]}
    store_refs(database, connection, repository_id, same, {name: peeled[name] for name in same})


def _find_row(connection: Connection, name: str, host: str, git_dir: str, moved: bool) -> Row[Any] | None:
    """The row that is this repository's, or becomes it; None for a repository that is new."""
    rows = connection.execute(select(schema.repositories).order_by(schema.repositories.c.name)).all()
    named = next((row for row in rows if row.name == name), None)
    here = [row for row in rows if row.host == host and _is_same_folder(row.git_dir, git_dir)]
    if named in here:
        return named
    if named is None:
        if len(here) > 1:
            raise UsageError(
                f"the ledger has {git_dir} under several names, {', '.join(row.name for row in here)}; "
                "give --name one of them, then `ciapp forget` the others"
            )
        return here[0] if here else None
    if not here and not moved:
        raise UsageError(
            f"the name {name} belongs to {named.host}:{named.git_dir}; choose another with --name, "
            "or add --moved if that repository is here now"
        )
    if here:
        raise UsageError(
            f"the name {name} belongs to {named.host}:{named.git_dir}, and {git_dir} has a history of its "
            f"own as {here[0].name}; choose another with --name, or `ciapp forget` one of the two first"
        )
    return named


def _is_same_folder(known: str, git_dir: str) -> bool:
    """Whether two paths lead to one folder, through symbolic links as well."""
    if known == git_dir:
        return True
    try:
        return Path(known).samefile(git_dir)
    except OSError:
        return False
