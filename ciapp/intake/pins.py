"""Refs of our own, which keep pushed commits from git's garbage collection until their runs have ended.

In:  a repository, the record of a push, and the commits that its refs named.
Out: refs/ciapp/push/<digest of the record>/<number>, one per commit; hidden from whoever pushes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ciapp.errors import GitError
from ciapp.git import Repository
from ciapp.intake.push import OWN_REFS


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
    pins = git.run("for-each-ref", "--format=delete %(refname)", _prefix(record))
    if pins:
        git.run("update-ref", "--stdin", stdin=pins + "\n")


def _prefix(record: str) -> str:
    # A record is named by whoever may write into the spool; not every name makes a ref.
    digest = hashlib.sha256(record.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{OWN_REFS}push/{digest[:20]}/"
