"""What a pyproject.toml says about a project's dependencies and its build, without running the build.

In:  the file's content.
Out: requirement lines, and the facts of `[project]` and `[build-system]`; a ProjectError for a file that
     cannot be what it claims to be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ciapp.errors import ProjectError
from ciapp.testing.toml import parse_toml

PYPROJECT = "pyproject.toml"
#: What a project without a [build-system] is built with, by PEP 517.
LEGACY_BACKEND = "setuptools.build_meta:__legacy__"
LEGACY_REQUIRES = ("setuptools>=40.8.0",)
NAME = re.compile(r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[(?P<extras>[^\]]*)\])?")
DEEPEST = 20


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """How a project is built, by PEP 517."""

    backend: str = LEGACY_BACKEND
    backend_path: tuple[str, ...] = ()  #: folders of the project that the backend itself comes from
    requires: tuple[str, ...] = LEGACY_REQUIRES


class PyProject(msgspec.Struct, frozen=True, kw_only=True):
    """What a pyproject.toml declares. Names of extras and groups are normalized."""

    name: str = ""
    has_project: bool = False
    has_build: bool = False
    is_package: bool = True  #: False when its own tool calls it a collection of scripts
    dynamic: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    #: Of requirements where uv takes them from, by name: {"workspace": True}, {"path": "../other"}, …
    sources: Mapping[str, Mapping[str, Any]] = {}
    members: tuple[str, ...] = ()  #: patterns of the folders of uv's workspace, and of those left out
    excluded: tuple[str, ...] = ()
    build: Build = Build()


def read_pyproject(name: str, text: bytes) -> PyProject:
    """The declarations of a file; `name` is for sentences."""
    document = _parse(name, text)
    project, system = _table(document, name, "project"), _table(document, name, "build-system")
    tool = _table(document, name, "tool")
    uv, poetry = _table(tool, name, "uv", "tool.uv"), _table(tool, name, "poetry", "tool.poetry")
    workspace = _table(uv, name, "workspace", "tool.uv.workspace")
    build = Build()
    if "build-backend" in system or "requires" in system:
        backend = system.get("build-backend", LEGACY_BACKEND)
        if not isinstance(backend, str) or not re.fullmatch(r"[\w.]+(:[\w.]+)?", backend):
            raise ProjectError(f"{name}: build-system.build-backend is no name of an object; correct it")
        build = Build(
            backend=backend,
            backend_path=tuple(_strings(system.get("backend-path", []), name, "build-system.backend-path")),
            requires=tuple(_strings(system.get("requires", []), name, "build-system.requires")),
        )
    return PyProject(
        name=normalize(str(project.get("name", ""))),
        has_project="project" in document,
        has_build="build-system" in document,
        is_package=uv.get("package") is not False and poetry.get("package-mode") is not False,
        dynamic=tuple(_strings(project.get("dynamic", []), name, "project.dynamic")),
        extras=tuple(map(normalize, _table(project, name, "optional-dependencies"))),
        groups=tuple(map(normalize, _table(document, name, "dependency-groups"))),
        sources=_sources(_table(uv, name, "sources", "tool.uv.sources")),
        members=tuple(_strings(workspace.get("members", []), name, "tool.uv.workspace.members")),
        excluded=tuple(_strings(workspace.get("exclude", []), name, "tool.uv.workspace.exclude")),
        build=build,
    )


def read_dependencies(
    name: str, text: bytes, *, extras: Iterable[str] | None, groups: Iterable[str]
) -> list[str]:
    """Requirement lines: `[project]`'s own with these extras (None: neither), and those of groups."""
    document = _parse(name, text)
    project = _table(document, name, "project")
    lines: list[str] = []
    if extras is not None:
        lines += _strings(project.get("dependencies", []), name, "project.dependencies")
        for extra in extras:
            lines += _extra(project, extra, name, 0)
    for group in groups:
        lines += _group(_table(document, name, "dependency-groups"), group, name, 0)
    return list(dict.fromkeys(lines))


def names_of(lines: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of requirements the normalized names, each with the extras that it asks for."""
    for line in lines:
        if found := NAME.match(line):
            extras = (word.strip() for word in (found["extras"] or "").split(","))
            yield normalize(found["name"]), tuple(filter(None, extras))


def normalize(name: str) -> str:
    """A name of a package, an extra or a group as the registry compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _sources(table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Those that are for all environments, or for a single kind."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in table.items():
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        found[normalize(name)] = one if isinstance(one, dict) else {}
    return found


def _extra(project: dict[str, Any], extra: str, place: str, depth: int) -> Iterator[str]:
    """The lines of an extra; where it asks for the project itself, those of the extras that it asks for."""
    declared = {
        normalize(key): value for key, value in _table(project, place, "optional-dependencies").items()
    }
    if normalize(extra) not in declared or depth > DEEPEST:
        raise ProjectError(f"{place}: there is no extra {extra!r} in project.optional-dependencies; add it")
    own = normalize(str(project.get("name", "")))
    for line in _strings(declared[normalize(extra)], place, f"project.optional-dependencies.{extra}"):
        found = NAME.match(line)
        if found and own and normalize(found["name"]) == own:
            for inner in filter(None, (word.strip() for word in (found["extras"] or "").split(","))):
                yield from _extra(project, inner, place, depth + 1)
        else:
            yield line


def _group(declared: dict[str, Any], group: str, place: str, depth: int) -> Iterator[str]:
    """The lines of a dependency group, and of those that it includes (PEP 735)."""
    known = {normalize(key): value for key, value in declared.items()}
    entries = known.get(normalize(group))
    if depth > DEEPEST:
        raise ProjectError(f"{place}: dependency group {group!r} includes itself; break the circle")
    if not isinstance(entries, list):
        raise ProjectError(f"{place}: there is no dependency group {group!r}; add it to [dependency-groups]")
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict) and isinstance(entry.get("include-group"), str):
            yield from _group(declared, entry["include-group"], place, depth + 1)
        else:
            raise ProjectError(f"{place}: dependency-groups.{group} has an entry that is no requirement")


def _parse(name: str, text: bytes) -> dict[str, Any]:
    try:
        return parse_toml(name, text.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ProjectError(f"{name}:{line}: not UTF-8: {error.reason} at byte {error.start}") from error


def _table(above: dict[str, Any], place: str, key: str, full: str = "") -> dict[str, Any]:
    value = above.get(key, {})
    if not isinstance(value, dict):
        raise ProjectError(f"{place}: {full or key} is no table; write [{full or key}]")
    return value


def _strings(value: Any, place: str, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and "\n" not in one for one in value):
        raise ProjectError(f"{place}: {key} is no list of strings; correct it")
    return value
