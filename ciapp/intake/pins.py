"""Refs of our own, which keep pushed commits from git's garbage collection until their runs have ended.

In:  a repository, the record of a push, and the commits that its refs named.
Out: refs/ciapp/push/<digest of the record>/<number>, one per commit; hidden from whoever pushes.

A pin comes before the rows that account for it, so whoever dies in between leaves one that nobody lets go of
(`Orphans`). A spool record is pinned again under the same name; what the dispatcher found by itself stands
under refs/ciapp/found/, where nobody else puts pins: it knows soon which of them are lost.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable

from ciapp.errors import GitError
from ciapp.git import Repository
from ciapp.intake.push import OWN_REFS

logger = logging.getLogger(__name__)

PUSHED, FOUND = f"{OWN_REFS}push/", f"{OWN_REFS}found/"
FOUND_RECORD = "found-"
ORPHAN_S = 3600.0  #: a command that records past commits meanwhile may take long
FOUND_ORPHAN_S = 1.0  #: the dispatcher itself makes these, and makes none while it looks


def pin(git: Repository, record: str, commits: Iterable[str]) -> None:
    """Keep these commits and all behind them, whatever is pushed over them; pinning again changes nothing."""
    prefix = _prefix(record)
    lines = [f"update {prefix}{number} {commit}\n" for number, commit in enumerate(commits)]
    if not lines:
        return
    try:
        git.run("update-ref", "--stdin", stdin="".join(lines))
    except GitError:
        # What a machine that went down has left would keep every further push waiting.
        if not git.clear_locks(prefix):
            raise
        git.run("update-ref", "--stdin", stdin="".join(lines))


def drop_pins(git: Repository, record: str) -> None:
    """Let go of what was pinned for a record, if anything was."""
    # ciapp pinned what it found under PUSHED as well, once.
    _drop(git, *{_prefix(record), _prefix(record).replace(FOUND, PUSHED)})


def drop_all_pins(git: Repository) -> None:
    """Let go of everything that ciapp ever pinned."""
    _drop(git, OWN_REFS)


class Orphans:
    """The pins of a repository that no push accounts for."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # prefix → when it was first seen

    def drop(self, git: Repository, records: Callable[[], Iterable[str]], now: float) -> None:
        """Let go of those that nobody will account for any more; `records` are asked for after the pins."""
        pins = git.run("for-each-ref", "--format=%(refname)", PUSHED, FOUND).split()
        there = {pin.rpartition("/")[0] + "/" for pin in pins}
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


def _drop(git: Repository, *prefixes: str) -> None:
    pins = git.run("for-each-ref", "--format=delete %(refname)", *prefixes)
    if pins:
        git.run("update-ref", "--stdin", stdin=pins + "\n")


def _prefix(record: str) -> str:
    # A record is named by whoever may write into the spool; not every name makes a ref.
    digest = hashlib.sha256(record.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{FOUND if record.startswith(FOUND_RECORD) else PUSHED}{digest[:20]}/"
