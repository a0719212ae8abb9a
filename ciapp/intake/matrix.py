"""Which environments commits are tested in: one for each version of Python that a commit names.

In:  commits of a push; the repository's objects; the server's settings for it.
Out: for each commit the names of its environments.

A configuration is read from git's objects by its blob's id, once for all commits that share it: one batch of
names for git to look up, one of contents, for each batch of commits. What cannot be used is no reason to
stop: such a commit gets one run in the default environment, which ends with file, line and sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from pathlib import Path

from ciapp.errors import ProjectError
from ciapp.git import Commit, Repository
from ciapp.results.matrix import DEFAULT, environment_of
from ciapp.results.pushes import KnownRepository
from ciapp.settings import Settings
from ciapp.testing.project import LARGEST_BYTES, OWN_FILE, SHARED_FILE, decode_text, read_project

logger = logging.getLogger(__name__)

#: Of configurations read for one push. They are read in the push's transaction, a MiB in about a second;
#: 1,400 different ones of 3 KB fit in.
MOST_BYTES = 4 << 20

Key = tuple[
    str, str
]  #: name and blob of the file that speaks for a commit; two empty texts when none is there
_DEFAULT_ALONE = (DEFAULT,)
_NO_FILE: Key = ("", "")


class Matrix:
    """The environments of one push's commits."""

    def __init__(self, settings: Settings, repository: KnownRepository) -> None:
        self._name = repository.name
        self._git = Repository(Path(repository.git_dir))
        self._defaults = settings.for_repository(repository.name).project
        self._limits = settings.limits
        self._known: dict[Key, tuple[str, ...]] = {}
        self._left = MOST_BYTES

    def environments(self, commits: Sequence[Commit]) -> list[tuple[str, ...]]:
        """Of each commit, at least one. Raises GitError when the repository has lost an object."""
        keys = self._keys([commit.tree for commit in commits])
        self._read({key for key in keys if key not in self._known})
        return [self._known[key] for key in keys]

    def _keys(self, trees: Sequence[str]) -> list[Key]:
        """For each tree the file that speaks for it; one that cannot be read counts as known, and bad."""
        names = [f"{tree}:{file}" for tree in trees for file in (OWN_FILE, SHARED_FILE)]
        found = self._git.objects(names)
        keys = []
        for place in range(0, len(names), 2):
            key = _NO_FILE
            for file, named in zip((OWN_FILE, SHARED_FILE), found[place : place + 2], strict=True):
                if named is not None:
                    key = (file, named.id)
                    if named.kind != "blob" or named.size > LARGEST_BYTES:
                        self._known[key] = _DEFAULT_ALONE
                    break
            keys.append(key)
        return keys

    def _read(self, keys: Set[Key]) -> None:
        files = sorted(key for key in keys if key != _NO_FILE) if self._left >= 0 else []
        if _NO_FILE in keys:
            self._known[_NO_FILE] = self._evaluate(_NO_FILE, b"")
        for key, content in zip(files, self._git.contents([blob for _, blob in files]), strict=True):
            self._left -= len(content)
            if self._left < 0:
                logger.warning(
                    "more configurations in one push than are read; the rest is tested in one environment",
                    extra={"repo": self._name, "limit_bytes": MOST_BYTES},
                )
                break
            self._known[key] = self._evaluate(key, content)
        for key in keys:
            self._known.setdefault(key, _DEFAULT_ALONE)

    def _evaluate(self, key: Key, content: bytes) -> tuple[str, ...]:
        def read(file: str) -> str | None:
            return decode_text(file, content) if file == key[0] else None

        try:
            project = read_project(read, self._defaults, self._limits)
        except ProjectError:
            return _DEFAULT_ALONE
        return tuple(map(environment_of, project.python)) or _DEFAULT_ALONE
