"""Take a repository in: its hook, its place in the ledger, and what of its past is to be tested."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ciapp.errors import GitError, UsageError
from ciapp.git import Commit, Repository
from ciapp.git_dirs import find_git_dir, is_linked
from ciapp.intake.hook import default_name, install_hook
from ciapp.intake.matrix import Matrix
from ciapp.intake.pins import pin
from ciapp.intake.push import RefUpdate, new_commits, peeled_tags, single_commits, tips
from ciapp.intake.recording import policy_of, record_and_tell
from ciapp.results.database import Database
from ciapp.results.matrix import environment_of
from ciapp.results.pushes import (
    EnvironmentsOf,
    KnownRepository,
    NewPush,
    Recorded,
    has_commit,
)
from ciapp.results.registration import check_name, names_of, register_repository
from ciapp.results.reruns import rerun
from ciapp.results.runs import find_runs
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

    Doing it again changes nothing but what was asked for anew: another name is given to the same history.
    Raises UsageError when the name belongs to another repository, unless that one has `moved` here with its
    history.
    """
    git_dir = find_git_dir(path)
    git = Repository(git_dir)
    since = _resolve(git, path, test_since) if test_since else None
    host = settings.host_name
    known = names_of(database, host=host, git_dir=str(git_dir))
    if name is None:
        name = known[0] if len(known) == 1 else default_name(git_dir)
    check_name(database, name=name, host=host, git_dir=str(git_dir), moved=moved)
    # What a push changes from here on is found: by the hook, or by comparing refs with these.
    refs = {ref: value for ref, value in git.refs().items() if policy_of(settings, name, ref) != "off"}
    peeled = _peeled(git, refs)
    install_hook(path, name=name, command=COMMAND, config=settings_file(), state_dir=settings.state_path)
    repository = register_repository(
        database, name=name, host=host, git_dir=str(git_dir), refs=refs, peeled=peeled, moved=moved
    )
    lines = [f"hook installed in {git_dir}; pushes to it are tested as {name}"]
    if is_linked(path, git_dir):
        lines.append(f"{path} is one of its work trees; all of them share the hook")
    lines += _say_other_names(
        settings, name, [one for one in known if one != name], is_renamed=name not in known
    )
    if test_tips or since:
        added = _queue_past(settings, database, repository, git, refs, since)
        lines.append(f"{added.runs} runs of its commits are queued")
    return lines


def _say_other_names(settings: Settings, name: str, others: Sequence[str], *, is_renamed: bool) -> list[str]:
    """What became of the names that the ledger had for a repository before this one."""
    if not is_renamed:
        return [
            f"the ledger has it as {other} as well; run `ciapp forget {other}`, or each push counts twice"
            for other in others
        ]
    lines = [
        f"it was {other}: its runs and reports are {name}'s now; "
        f"workers fetch into a new mirror, and what is in mirrors/{other}.git can be deleted"
        for other in others
    ]
    lines += [
        f"the settings still have [repository.{other}]; call it [repository.{name}] there, on every host"
        for other in others
        if other in settings.repository and name not in settings.repository
    ]
    return lines


def queue_commit(
    settings: Settings,
    database: Database,
    repository: KnownRepository,
    commit: str,
    version: str = "",
    *,
    fresh: bool = False,
) -> bool:
    """Queue a commit's runs again, or for the first time; False when all are waiting or running already.

    These are the runs that it has, and those that its configuration asks for; with `version`, the one under
    that Python alone. `fresh` as for `ciapp.results.reruns.rerun`. Raises UsageError for a commit that only
    the repository's host knows enough about.
    """
    is_here = repository.host == settings.host_name
    if not has_commit(database, repository.id, commit):
        if not is_here:
            raise UsageError(
                f"the ledger does not know commit {commit[:12]}; ask for it on {repository.host}"
            )
        git = Repository(Path(repository.git_dir))
        environments: EnvironmentsOf = Matrix(settings, repository).environments
        if version:
            environments = partial(_all_in, environment_of(version))
        _record_now(database, repository, git, {commit: ()}, {}, "rerun", environments, fresh=fresh)
        return True
    wanted = [environment_of(version)] if version else _environments(settings, database, repository, commit)
    queued = [rerun(database, repository.id, commit, one, fresh=fresh) for one in wanted]
    return any(queued)


def _environments(
    settings: Settings, database: Database, repository: KnownRepository, commit: str
) -> list[str]:
    """Those that a known commit has runs in, then those that it asks for beside, as far as can be told."""
    had = [run.environment for run in find_runs(database, repository.name, [commit])]
    asked: tuple[str, ...] = ()
    try:
        if repository.host == settings.host_name:
            [one] = single_commits(Repository(Path(repository.git_dir)), [commit])
            [asked] = Matrix(settings, repository).environments([one])
        elif not had:
            raise UsageError(
                f"commit {commit[:12]} has no run, and what it asks for is known where its repository is; "
                f"ask for it on {repository.host}"
            )
    except GitError:
        if not had:
            raise
    return list(dict.fromkeys((*had, *asked)))


def _all_in(environment: str, commits: Sequence[Commit]) -> list[tuple[str, ...]]:
    return [(environment,)] * len(commits)


def _queue_past(
    settings: Settings,
    database: Database,
    repository: KnownRepository,
    git: Repository,
    refs: Mapping[str, str],
    since: str | None,
) -> Recorded:
    """Record what is there as if it were pushed now: the tips alone, or all since a commit."""
    null_id = "0" * len(next(iter(refs.values()), "0" * 40))
    named = tips(git, [RefUpdate(old=null_id, new=value, ref=ref) for ref, value in refs.items()])
    environments = Matrix(settings, repository).environments
    return _record_now(database, repository, git, named, refs, "install", environments, since)


def _record_now(
    database: Database,
    repository: KnownRepository,
    git: Repository,
    named: Mapping[str, tuple[str, ...]],
    refs: Mapping[str, str],
    why: str,
    environments: EnvironmentsOf,
    since: str | None = None,
    *,
    fresh: bool = False,
) -> Recorded:
    """Record commits as if they were pushed now, with the refs that name them: alone, or all since one."""
    if since is None:
        commits, tested = single_commits(git, named), frozenset(named)
    else:
        updates = [RefUpdate(old="", new=commit, ref="HEAD") for commit in named]
        commits, tested = new_commits(git, updates, {since}), None
    now = datetime.now(UTC)
    push = NewPush(
        record=f"{why}-{now:%Y%m%dT%H%M%S.%f}",
        received_at=now,
        refs=refs,
        peeled=_peeled(git, refs),
        tips=named,
        tested=tested,
        environments=environments,
        fresh=fresh,
    )
    pin(git, push.record, named)
    return record_and_tell(database, repository, push, commits)


def _peeled(git: Repository, refs: Mapping[str, str]) -> dict[str, str]:
    return peeled_tags(git, [RefUpdate(old="", new=value, ref=ref) for ref, value in refs.items()])


def _resolve(git: Repository, path: Path, revision: str) -> str:
    try:
        return git.resolve_commit(revision)
    except GitError as error:
        raise UsageError(f"{path} has no revision {revision!r}; give --test-since a commit of it") from error
