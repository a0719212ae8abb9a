"""The runs of a line of commits.

In:  a repository's name and a revision, as a person writes it.
Out: commits, newest first, with the facts of each and its runs.

git knows what a revision means, where the repository is on this host; elsewhere the ledger knows commits by
the start of their ids, refs by what was last seen of them, and what ~ and ^ lead to by the commits' parents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from sqlalchemy import select

from ciapp.errors import GitError, NoSuchRunError, UsageError
from ciapp.git import Repository
from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.pushes import PEELED, KnownRepository, seen_refs
from ciapp.results.runs import Run, find_runs

COMMIT_ID = re.compile(r"[0-9a-f]{4,64}")  #: or the start of one
HEAD = re.compile(r"(HEAD|@)([~^].*)?", re.DOTALL)
STEPS = re.compile(
    r"(.+?)((?:~\d*|\^\d*|\^\{(?:commit)?\})*)", re.DOTALL
)  #: a name, and where it leads from there
STEP = re.compile(r"([~^])(\d+|\{(?:commit)?\})?")
REF_PREFIXES = ("", "refs/", "refs/heads/", "refs/tags/")


class NotInLedgerError(UsageError):
    """The ledger has no such commit of a repository that is elsewhere; perhaps not yet."""


class LoggedCommit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit of a line of history, and what is known of its tests."""

    commit: str
    author: str
    subject: str
    runs: tuple[Run, ...]  #: one per environment; empty when it is not tested, or was purged
    is_purged: bool = False  #: whether it had a run that retention let go of


def resolve_revision(database: Database, repository: KnownRepository, revision: str, host: str) -> str:
    """The commit that a revision names. Raises UsageError when it names none."""
    if repository.host == host and Path(repository.git_dir).is_dir():
        git = Repository(Path(repository.git_dir))
        try:
            return git.resolve_commit(_with_default_branch(revision, git))
        except GitError as error:
            raise UsageError(_say_unknown(repository.name, revision, git)) from error
    refs = seen_refs(database, repository.id)
    branches = [name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/")]
    matched = STEPS.fullmatch(revision)
    name, steps = matched.groups() if matched else (revision, "")
    if name in ("HEAD", "@") and len(branches) == 1:
        name = branches[0]
    found = _known_commits(database, repository.id, name)
    if len(found) == 1:
        return _follow(database, repository, found.pop(), steps)
    if found:
        raise UsageError(f"{name!r} is the start of several commits of {repository.name}; give more of it")
    unknown = f"the ledger knows no commit {name!r} of {repository.name}, which is on {repository.host}"
    if COMMIT_ID.fullmatch(name):
        raise NotInLedgerError(f"{unknown}; push it first, or see `ciapp log {repository.name}`")
    raise UsageError(f"{unknown}; give a commit id, a tag or a branch: {_some(branches)}")


def refs_with(repository: KnownRepository, commit: str, host: str) -> list[str]:
    """The refs that a commit is reached from; empty where the repository is elsewhere, or lacks it."""
    if repository.host != host:
        return []
    try:
        words = ("for-each-ref", f"--contains={commit}", "--format=%(refname)")
        return Repository(Path(repository.git_dir)).run(*words).split()
    except GitError:
        return []


def commit_log(
    database: Database, repository: KnownRepository, revision: str, host: str, limit: int
) -> list[LoggedCommit]:
    """At most `limit` commits from a revision back, newest first. Raises UsageError for an unknown one."""
    tip = resolve_revision(database, repository, revision, host)
    if repository.host == host and Path(repository.git_dir).is_dir():
        lines = Repository(Path(repository.git_dir)).run(
            "log", f"--max-count={limit}", "--format=%H%x00%an <%ae>%x00%s", "--encoding=UTF-8", tip, "--"
        )
        commits = [_logged(line) for line in lines.split("\n") if line]
    else:
        commits = _logged_in_ledger(database, repository.id, tip, limit)
    runs: dict[str, list[Run]] = {}
    for run in find_runs(database, repository.name, [commit for commit, *_ in commits]):
        runs.setdefault(run.commit, []).append(run)
    purged = _purged(database, repository.id, [commit for commit, *_ in commits if commit not in runs])
    return [
        LoggedCommit(
            commit=commit,
            author=author,
            subject=subject,
            runs=tuple(runs.get(commit, ())),
            is_purged=commit in purged,
        )
        for commit, author, subject in commits
    ]


def runs_of(database: Database, repository: KnownRepository, commit: str) -> list[Run]:
    """The runs of one commit, at least one. Raises NoSuchRunError when it was never to be tested."""
    runs = find_runs(database, repository.name, [commit])
    if not runs:
        raise NoSuchRunError(
            f"commit {commit[:12]} of {repository.name} has no run; queue one with "
            f"`ciapp rerun {repository.name} {commit[:12]}`, or `ciapp wait` for it if it was just pushed"
        )
    return runs


def _with_default_branch(revision: str, git: Repository) -> str:
    """HEAD stands for the only branch, also where it names one that was never pushed."""
    matched = HEAD.fullmatch(revision)
    if matched is None:
        return revision
    branches = _branches(git)
    return branches[0] + (matched[2] or "") if len(branches) == 1 else revision


def _say_unknown(name: str, revision: str, git: Repository) -> str:
    branches = [ref.removeprefix("refs/heads/") for ref in _branches(git)]
    # What is behind a tag; after a path, which may end in ^{} itself, that means something else.
    asked = [] if "\n" in revision else [f"{revision}^{{}}", revision]
    for named in git.objects(asked):
        if named is not None and named.kind in ("blob", "tree"):
            return f"{revision!r} names a {named.kind} of {name}, not a commit; there is nothing to test"
    if not branches:
        return f"{name} has no branch yet, so {revision!r} names nothing; push one"
    unborn = _unborn_branch(git) if HEAD.fullmatch(revision) else ""
    if unborn:
        mended = next((one for one in ("main", "master") if one in branches), branches[0])
        return (
            f"HEAD of {name} names {unborn}, which is not there; give one of its branches, "
            f"{_some(branches)}, or run `git -C {git.git_dir} symbolic-ref HEAD refs/heads/{mended}`"
        )
    return f"{name} has no revision {revision!r}; its branches are {_some(branches)}"


def _unborn_branch(git: Repository) -> str:
    """The branch that HEAD names and that is not there; empty when HEAD names a commit."""
    try:
        return "" if git.objects(["HEAD"])[0] else git.run("symbolic-ref", "HEAD")
    except GitError:
        return ""


def _branches(git: Repository) -> list[str]:
    return [ref for ref in git.refs() if ref.startswith("refs/heads/")]


def _some(branches: Sequence[str]) -> str:
    return ", ".join(branches[:10]) + (", …" if len(branches) > 10 else "") if branches else "none yet"


def _logged(line: str) -> tuple[str, str, str]:
    commit, author, subject = line.split("\0", 2)
    return commit, author, subject


def _purged(database: Database, repository_id: int, candidates: Sequence[str]) -> set[str]:
    commits = schema.commits.c
    found: set[str] = set()
    with database.read() as connection:
        for start in range(0, len(candidates), 500):
            query = select(commits.commit).where(
                commits.repository_id == repository_id,
                commits.commit.in_(candidates[start : start + 500]),
                commits.purged_at.is_not(None),
            )
            found |= set(connection.scalars(query))
    return found


def _known_commits(database: Database, repository_id: int, name: str) -> set[str]:
    """The commits, two at most, that a ref or the start of an id stands for; annotated tags are peeled."""
    commits, refs, behind = schema.commits.c, schema.refs.c, schema.refs.alias().c
    mine = refs.repository_id == repository_id
    with database.read() as connection:
        for prefix in REF_PREFIXES:
            full = prefix + name
            query = select(refs.name, refs.value).where(mine, refs.name.in_((full, full + PEELED)))
            values = {row.name: row.value for row in connection.execute(query)}
            if full in values:
                return {values.get(full + PEELED, values[full])}
        if not COMMIT_ID.fullmatch(name):
            return set()
        by_id = select(commits.commit).where(
            commits.repository_id == repository_id, commits.commit.startswith(name, autoescape=True)
        )
        by_tag = select(behind.value).where(
            mine,
            refs.value.startswith(name, autoescape=True),
            behind.repository_id == repository_id,
            behind.name == refs.name + PEELED,
        )
        return {*connection.scalars(by_id.limit(2)), *connection.scalars(by_tag.distinct().limit(2))}


def _follow(database: Database, repository: KnownRepository, commit: str, steps: str) -> str:
    """Where steps like ~2 and ^2 lead from a commit. Raises UsageError for a parent that is not known."""
    commits = schema.commits.c
    with database.read() as connection:
        for kind, number in STEP.findall(steps):
            if number.startswith("{"):
                continue
            count = int(number or 1)
            # ~2 is two steps, each to the first parent; ^2 is one step to the second, and ^0 is none.
            for which in [1] * count if kind == "~" else [count] if count else []:
                query = select(commits.parents).where(
                    commits.repository_id == repository.id, commits.commit == commit
                )
                parents = (connection.scalar(query) or "").split()
                if len(parents) < which:
                    raise UsageError(
                        f"the ledger knows no parent {which} of commit {commit[:12]} of {repository.name}; "
                        f"ask for it on {repository.host}, or give a commit id"
                    )
                commit = parents[which - 1]
    return commit


def _logged_in_ledger(
    database: Database, repository_id: int, tip: str, limit: int
) -> list[tuple[str, str, str]]:
    """First parents from a tip back, as far as the ledger knows them."""
    commits = schema.commits.c
    found: list[tuple[str, str, str]] = []
    following = tip
    with database.read() as connection:
        while following and len(found) < limit:
            row = connection.execute(
                select(schema.commits).where(
                    commits.repository_id == repository_id, commits.commit == following
                )
            ).one_or_none()
            if row is None:
                break
            found.append((row.commit, row.author, row.subject))
            following = row.parents.split()[0] if row.parents else ""
    return found
