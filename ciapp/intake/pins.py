"""Refs of our own, which keep commits from git's garbage collection until their runs have ended.

In:  a repository; the record of a push and the commits that its refs named, or commits that are to be tested.
Out: refs/ciapp/push/<digest of the record>/<number>, one per commit of a push, and refs/ciapp/run/<commit>
     for runs that no push keeps; hidden from whoever pushes.

A push's pin comes before the rows that account for it, so whoever dies in between leaves one that nobody lets
go of (`Orphans`). A spool record is pinned again under the same name; what the dispatcher found by itself
stands under refs/ciapp/found/, where nobody else puts pins: it knows soon which of them are lost.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping

from ciapp.errors import GitError
from ciapp.git import Repository
from ciapp.intake.push import OWN_REFS

logger = logging.getLogger(__name__)

PUSHED, FOUND, RUN = f"{OWN_REFS}push/", f"{OWN_REFS}found/", f"{OWN_REFS}run/"
FOUND_RECORD = "found-"
ORPHAN_S = 3600.0  #: a command that records past commits meanwhile may take long
FOUND_ORPHAN_S = 1.0  #: the dispatcher itself makes these, and makes none while it looks


def pin(git: Repository, record: str, commits: Iterable[str]) -> None:
    """Keep these commits and all behind them, whatever is pushed over them; pinning again changes nothing."""
    prefix = _prefix(record)
    _change(git, prefix, [f"update {prefix}{number} {commit}" for number, commit in enumerate(commits)])


def drop_pins(git: Repository, record: str) -> None:
    """Let go of what was pinned for a record, if anything was."""
    # ciapp pinned what it found under PUSHED as well, once.
    _drop(git, *_prefixes(record))


def drop_all_pins(git: Repository) -> None:
    """Let go of everything that ciapp ever pinned."""
    _drop(git, OWN_REFS)


def without_pins(git: Repository, records: Mapping[int, str]) -> list[int]:
    """Those of these pushes, by their ids, for which nothing is pinned."""
    there = _pinned_prefixes(git) if records else set()
    return [push_id for push_id, record in records.items() if not there & _prefixes(record)]


class Orphans:
    """The pins of a repository that no push accounts for."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # prefix → when it was first seen

    def drop(self, git: Repository, records: Callable[[], Iterable[str]], now: float) -> None:
        """Let go of those that nobody will account for any more; `records` are asked for after the pins."""
        there = _pinned_prefixes(git)
        lost = there - {_prefix(record) for record in records()} if there else set()
        self._since = {prefix: self._since.get(prefix, now) for prefix in lost}
        due = tuple(
            prefix
            for prefix, since in self._since.items()
            if now - since >= (ORPHAN_S if prefix.startswith(PUSHED) else FOUND_ORPHAN_S)
        )
        if due:
            logger.warning("pins of a push that was never recorded dropped", extra={"pushes": len(due)})
            _drop(git, *due)


class RunPins:
    """The pins of a repository for runs that no push keeps: those that are wanted, and no others."""

    def __init__(self) -> None:
        self._there: set[str] | None = None  # commits; None: not looked at yet
        self._wanted: frozenset[str] | None = None  # when they were last held against those

    def look_again(self) -> None:
        """Do not believe what was there any longer: somebody else may have changed it."""
        self._there = self._wanted = None

    def keep(self, git: Repository, wanted: Mapping[str, tuple[str, ...]]) -> None:
        """Pin these commits, given with their parents, and let go of all others. What is gone is left out."""
        if self._wanted == frozenset(wanted):
            return
        if self._there is None:
            self._there = {ref.removeprefix(RUN) for ref in _list(git, RUN)}
        present = _present(git, list(wanted))
        # A pin keeps all that is behind it: of a backlog, the last commit is enough.
        behind = {parent for commit in present for parent in wanted[commit]}
        heads = present - behind
        lines = [f"update {RUN}{commit} {commit}" for commit in sorted(heads - self._there)]
        lines += [f"delete {RUN}{commit}" for commit in sorted(self._there - heads)]
        try:
            _change(git, RUN, lines)
        except GitError:
            self.look_again()
            raise
        self._there, self._wanted = heads, frozenset(wanted)


def _present(git: Repository, commits: list[str]) -> set[str]:
    """Those of these commits that the repository still has."""
    try:
        found = git.objects(commits)
    except GitError:  # a damaged object ends git's whole answer
        return {commit for commit in commits if git.has_commit(commit)}
    return {
        commit
        for commit, there in zip(commits, found, strict=True)
        if there is not None and there.kind == "commit"
    }


def _change(git: Repository, below: str, lines: list[str]) -> None:
    if not lines:
        return
    words, stdin = ("update-ref", "--stdin"), "".join(f"{line}\n" for line in lines)
    try:
        git.run(*words, stdin=stdin)
    except GitError:
        # What a machine that went down has left would keep every further push waiting.
        if not git.clear_locks(below):
            raise
        git.run(*words, stdin=stdin)


def _drop(git: Repository, *prefixes: str) -> None:
    pins = git.run("for-each-ref", "--format=delete %(refname)", *prefixes)
    if pins:
        git.run("update-ref", "--stdin", stdin=pins + "\n")


def _list(git: Repository, *prefixes: str) -> list[str]:
    return git.run("for-each-ref", "--format=%(refname)", *prefixes).split()


def _pinned_prefixes(git: Repository) -> set[str]:
    """One for each push that has pins."""
    return {ref.rpartition("/")[0] + "/" for ref in _list(git, PUSHED, FOUND)}


def _prefixes(record: str) -> set[str]:
    """Where the pins of a record may be."""
    return {_prefix(record), _prefix(record).replace(FOUND, PUSHED)}


def _prefix(record: str) -> str:
    # A record is named by whoever may write into the spool; not every name makes a ref.
    digest = hashlib.sha256(record.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{FOUND if record.startswith(FOUND_RECORD) else PUSHED}{digest[:20]}/"
