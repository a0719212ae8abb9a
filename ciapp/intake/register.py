"""Take a repository in: its hook, its place in the ledger, and what of its past is to be tested."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ciapp.errors import GitError, UsageError
from ciapp.git import Repository, find_git_dir
from ciapp.intake.hook import install_hook
from ciapp.intake.pins import pin
from ciapp.intake.push import RefUpdate, new_commits, tips
from ciapp.intake.recording import policy_of, record_and_tell
from ciapp.results.database import Database
from ciapp.results.pushes import KnownRepository, NewPush, Recorded, register_repository
from ciapp.settings import Settings, settings_file

COMMAND = (sys.executable, "-m", "ciapp.cli")


def install_and_register(
    settings: Settings,
    database: Database,
    path: Path,
    *,
    name: str | None = None,
    test_tips: bool = False,
    test_since: str | None = None,
) -> list[str]:
    """Install the hook and record the present refs as seen; returns lines that say what was done.

    Doing it again changes nothing but what was asked for anew.
    """
    git_dir = find_git_dir(path)
    git = Repository(git_dir)
    since = _resolve(git, path, test_since) if test_since else None
    installed = install_hook(
        path,
        name=name,
        command=COMMAND,
        config=settings_file(),
        state_dir=settings.state_path,
    )
    refs = {
        ref: value for ref, value in git.refs().items() if policy_of(settings, installed.name, ref) != "off"
    }
    repository = register_repository(
        database, name=installed.name, host=settings.host_name, git_dir=str(git_dir), refs=refs
    )
    lines = [f"hook installed in {git_dir}; pushes to it are tested as {installed.name}"]
    if test_tips or since:
        added = _queue_past(database, repository, git, refs, since)
        lines.append(f"{added.runs} of its commits are queued")
    return lines


def _queue_past(
    database: Database,
    repository: KnownRepository,
    git: Repository,
    refs: Mapping[str, str],
    since: str | None,
) -> Recorded:
    """Record what is there as if it were pushed now: the tips alone, or all since a commit."""
    null_id = "0" * len(next(iter(refs.values()), "0" * 40))
    updates = [RefUpdate(old=null_id, new=value, ref=ref) for ref, value in refs.items()]
    named = tips(git, updates)
    if since is None:
        listed = git.run("rev-list", "--no-walk", "--parents", "--stdin", stdin="\n".join([*named, ""]))
        seen = {parent for line in listed.split("\n") for parent in line.split(" ")[1:]} - set(named)
        tested = frozenset(named)
    else:
        seen, tested = {since}, None
    now = datetime.now(UTC)
    push = NewPush(
        record=f"install-{now:%Y%m%dT%H%M%S.%f}", received_at=now, refs=refs, tips=named, tested=tested
    )
    pin(git, push.record, named)
    return record_and_tell(database, repository, push, new_commits(git, updates, seen))


def _resolve(git: Repository, path: Path, revision: str) -> str:
    try:
        return git.resolve_commit(revision)
    except GitError as error:
        raise UsageError(f"{path} has no revision {revision!r}; give --test-since a commit of it") from error
