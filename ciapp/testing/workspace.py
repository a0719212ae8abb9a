"""Other folders of a commit that a project requires: what `[tool.uv.sources]` says of its requirements.

In:  the checkout, and what the project at its root requires.
Out: the folders to install beside it, and the requirements whose source is not followed.

A requirement is followed to a member of the root's `[tool.uv.workspace]`, or to a path in the checkout, and
from there on to what that project requires in turn.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from ciapp.testing.folders import holds_folder
from ciapp.testing.metadata import (
    PYPROJECT,
    PyProject,
    names_of,
    normalize,
    read_dependencies,
    read_pyproject,
)
from ciapp.testing.requirements import MOST_PROJECTS, LocalProject, read_file

MOST_MEMBERS = 500  #: folders that a workspace may have


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """Where requirements led to."""

    projects: tuple[LocalProject, ...] = ()
    left: tuple[tuple[str, str], ...] = ()  #: requirements that were not followed, with the kind of source


def follow_sources(checkout: Path, lines: Iterable[str]) -> Followed:
    """The folders that these requirements of the root project lead to.

    Raises ProjectError for a pyproject.toml on the way that cannot be used.
    """
    root = _read(checkout, ".")
    if not root.sources:
        return Followed()
    found: dict[str, LocalProject] = {}
    left: dict[str, str] = {}
    members: dict[str, str] | None = None
    waiting = [(".", root, list(lines))]
    while waiting:
        folder, declared, required = waiting.pop()
        for name, extras in names_of(required):
            base, source = folder, declared.sources.get(name)
            if source is None:
                base, source = ".", root.sources.get(name)
            if source is None or name in found or name in left:
                continue
            members = _members(checkout, root) if members is None else members
            place = _place(checkout, base, name, source, members)
            if place is None or len(found) >= MOST_PROJECTS:
                left[name] = next((kind for kind in ("git", "url", "index", "path") if kind in source), "")
                continue
            found[name] = LocalProject(
                path=place,
                marker=str(source.get("marker", "")),
                is_editable=source.get("editable") is not False,
            )
            below = _read(checkout, place)
            waiting.append((place, below, _required(checkout, place, below, extras)))
    return Followed(projects=tuple(found.values()), left=tuple(left.items()))


def _place(
    checkout: Path, base: str, name: str, source: Mapping[str, Any], members: Mapping[str, str]
) -> str | None:
    """The folder of a source, from the checkout's root; None when it is none of the commit's."""
    if source.get("workspace") is True:
        return members.get(name)
    path = source.get("path")
    if not isinstance(path, str) or "\0" in path:
        return None
    place = os.path.normpath(Path(base, path))
    is_inside = not Path(place).is_absolute() and ".." not in Path(place).parts
    return place if is_inside and holds_folder(checkout, place) else None


def _members(checkout: Path, root: PyProject) -> dict[str, str]:
    """The names of a workspace's projects → their folders."""
    left_out = set(_matching(checkout, root.excluded))
    found = {}
    for folder in _matching(checkout, root.members):
        if folder not in left_out and (checkout / folder / PYPROJECT).is_file():
            found[_read(checkout, folder).name] = folder
    return found


def _matching(checkout: Path, patterns: Iterable[str]) -> Iterator[str]:
    """The folders of a checkout that patterns name, from its root; no link is followed."""
    for pattern in patterns:
        if "\0" not in pattern and not pattern.startswith("/"):
            yield from islice(_expand(checkout, "", pattern.split("/")), MOST_MEMBERS)


def _expand(checkout: Path, prefix: str, parts: Sequence[str]) -> Iterator[str]:
    if not parts:
        yield prefix
        return
    first, *rest = parts
    if first in ("", "."):
        yield from _expand(checkout, prefix, rest)
        return
    if first == "**":
        yield from _expand(checkout, prefix, rest)
    try:
        with os.scandir(checkout / prefix) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in names:
        if first == "**" and not name.startswith("."):
            yield from _expand(checkout, str(Path(prefix, name)), parts)
        elif fnmatchcase(name, first) and not name.startswith("."):
            yield from _expand(checkout, str(Path(prefix, name)), rest)


def _read(checkout: Path, folder: str) -> PyProject:
    name = os.path.normpath(Path(folder, PYPROJECT))
    if not (checkout / name).is_file():
        return PyProject()
    return read_pyproject(name, read_file(checkout, name, name))


def _required(checkout: Path, folder: str, declared: PyProject, extras: Iterable[str]) -> list[str]:
    if not declared.has_project:
        return []
    name = os.path.normpath(Path(folder, PYPROJECT))
    known = [extra for extra in map(normalize, extras) if extra in declared.extras]
    return read_dependencies(name, read_file(checkout, name, name), extras=known, groups=())
