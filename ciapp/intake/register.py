"""Take a repository in: its hook, its place in the ledger, and what of its past is to be tested."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ciapp.errors import GitError, UsageError
from ciapp.git import Repository, find_git_dir
from ciapp.intake.hook import default_name, install_hook
from ciapp.intake.pins import pin
from ciapp.intake.push import RefUpdate, new_commits, single_commits, tips
from ciapp.intake.recording import policy_of, record_and_tell
from ciapp.results.database import Database
from ciapp.results.pushes import (
    KnownRepository,
    NewPush,
    Recorded,
    check_name,
    has_commit,
    register_repository,
)
from ciapp.results.runs import rerun
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
    moved: bool = False,
) -> list[str]:
    """Install the hook and record the present refs as seen; returns lines that say what was done.

    Doing it again changes nothing but what was asked for anew. Raises UsageError when the name belongs to
    another repository, unless that one has `moved` here with its history.
    """
    git_dir = find_git_dir(path)
    git = Repository(git_dir)
    since = _resolve(git, path, test_since) if test_since else None
    name = name or default_name(git_dir)
    where = {"name": name, "host": settings.host_name, "git_dir": str(git_dir)}
    if not moved:
        check_name(database, **where)
    # What a push changes from here on is found: by the hook, or by comparing refs with these.
    refs = {ref: value for ref, value in git.refs().items() if policy_of(settings, name, ref) != "off"}
    install_hook(path, name=name, command=COMMAND, config=settings_file(), state_dir=settings.state_path)
    repository = register_repository(database, **where, refs=refs)
    lines = [f"hook installed in {git_dir}; pushes to it are tested as {name}"]
    if test_tips or since:
        added = _queue_past(database, repository, git, refs, since)
        lines.append(f"{added.runs} of its commits are queued")
    return lines


def queue_commit(database: Database, repository: KnownRepository, commit: str, host: str) -> bool:
    """Queue a commit's run again, or for the first time; False when it is waiting or running already.

    Raises UsageError for a commit that no push brought, where the repository is not on this host.
    """
    if has_commit(database, repository.id, commit):
        return rerun(database, repository.id, commit)
    if repository.host != host:
        raise UsageError(f"the ledger does not know commit {commit[:12]}; ask for it on {repository.host}")
    _record_now(database, repository, Repository(Path(repository.git_dir)), {commit: ()}, {}, "rerun")
    return True


def _queue_past(
    database: Database,
    repository: KnownRepository,
    git: Repository,
    refs: Mapping[str, str],
    since: str | None,
) -> Recorded:
    """Record what is there as if it were pushed now: the tips alone, or all since a commit."""
    null_id = "0" * len(next(iter(refs.values()), "0" * 40))
    named = tips(git, [RefUpdate(old=null_id, new=value, ref=ref) for ref, value in refs.items()])
    return _record_now(database, repository, git, named, refs, "install", since)


def _record_now(
    database: Database,
    repository: KnownRepository,
    git: Repository,
    named: Mapping[str, tuple[str, ...]],
    refs: Mapping[str, str],
    why: str,
    since: str | None = None,
) -> Recorded:
    """Record commits as if they were pushed now, with the refs that name them: alone, or all since one."""
    if since is None:
        commits, tested = single_commits(git, named), frozenset(named)
    else:
        updates = [RefUpdate(old="", new=commit, ref="HEAD") for commit in named]
        commits, tested = new_commits(git, updates, {since}), None
    now = datetime.now(UTC)
    push = NewPush(
        record=f"{why}-{now:%Y%m%dT%H%M%S.%f}", received_at=now, refs=refs, tips=named, tested=tested
    )
    pin(git, push.record, named)
    return record_and_tell(database, repository, push, commits)


def _resolve(git: Repository, path: Path, revision: str) -> str:
    try:
        return git.resolve_commit(revision)
    except GitError as error:
        raise UsageError(f"{path} has no revision {revision!r}; give --test-since a commit of it") from error
