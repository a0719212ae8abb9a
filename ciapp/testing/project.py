"""A commit's own configuration: `.ciapp.toml` at its root, or `[tool.ciapp]` in its pyproject.toml.

In:  the checkout, or a way to read the two files; the server's defaults for the repository, and its limits.
Out: one `Project`; a ProjectError that names file, line and what is wrong.

The files are the commit's, so nothing about them is believed: they may be links, folders, or huge. The intake
reads them from git's objects, to know under which Pythons a commit is to be tested, and a worker from the
checkout; both read the same.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from ciapp.errors import ProjectError
from ciapp.settings import PYTHON_VERSION, Limits, explain_validation
from ciapp.testing.toml import parse_toml

OWN_FILE, SHARED_FILE = ".ciapp.toml", "pyproject.toml"
LARGEST_BYTES = 1 << 20
START_FOLDERS = ("tests", "test")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OLDEST_MINOR = 8  #: of Python 3, that the child runs under
MOST_PYTHONS = 12

#: The text of a file at the commit's root, by its name; None when there is none. Raises ProjectError for what
#: is no plain file, or cannot be read as text.
ReadText = Callable[[str], str | None]


class UnittestConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the tests are found; paths from the checkout's root."""

    start: str = ""  #: empty: tests/, else test/, else the root
    pattern: str = "test*.py"
    top: str = ""  #: empty: the root when the start folder is a package, else the start folder


class ProjectLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the commit asks to be held to; below the server's limits."""

    test_s: float | None = None
    run_s: float | None = None
    memory_mib: int | None = None


class Project(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a commit may say about how it is tested."""

    python: list[str] = []  #: versions, "3.13"; one run under each; empty: under the worker's own
    #: "auto": what the commit declares; a list: arguments of `uv pip install`; false: nothing
    install: bool | Literal["auto"] | list[str] = "auto"
    unittest: UnittestConfig = UnittestConfig()
    env: dict[str, str] = {}  #: `{checkout}` in a value stands for the checkout's folder
    limits: ProjectLimits = ProjectLimits()


def load_project(checkout: Path, defaults: dict[str, Any], limits: Limits) -> Project:
    """What applies to this checkout: `read_project` with the start folder filled in, which must be there."""
    project, name, text = _read(lambda file: _read_text(checkout / file), defaults, limits)
    return msgspec.structs.replace(project, unittest=_find_start(checkout, project.unittest, name, text))


def read_project(read: ReadText, defaults: dict[str, Any], limits: Limits) -> Project:
    """What the commit's two files say. Raises ProjectError when that is unusable.

    `defaults` are the server's, and stand where the commit says nothing.
    """
    return _read(read, defaults, limits)[0]


def decode_text(name: str, content: bytes) -> str:
    """The text of a configuration file; raises ProjectError when it is too large, or none."""
    if len(content) > LARGEST_BYTES:
        raise ProjectError(_no_plain_file(name))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error


def lower_limits(limits: Limits, project: Project) -> Limits:
    """The server's limits with what the commit asks for."""
    asked = msgspec.structs.asdict(project.limits)
    return msgspec.structs.replace(
        limits, **{name: value for name, value in asked.items() if value is not None}
    )


def _read(read: ReadText, defaults: dict[str, Any], limits: Limits) -> tuple[Project, str, str]:
    """The project, with name and text of the file that speaks."""
    name, text, data = _read_configuration(read)
    try:
        project = msgspec.convert(_merge(defaults, data), Project)
    except msgspec.ValidationError as error:
        said = explain_validation(error, Project)
        raise ProjectError(f"{_place(name, text, said)}: {said}") from error
    _check_pythons(project.python, name, text)
    _check_limits(project.limits, limits, name, text)
    for variable in project.env:
        if not VARIABLE.fullmatch(variable) or "\0" in project.env[variable]:
            raise ProjectError(
                f"{_place(name, text, variable)}: {variable!r} cannot be an environment variable; rename it"
            )
    return project, name, text


def _read_configuration(read: ReadText) -> tuple[str, str, dict[str, Any]]:
    own = read(OWN_FILE)
    if own is not None:
        return OWN_FILE, own, parse_toml(OWN_FILE, own)
    shared = read(SHARED_FILE)
    if shared is None or "tool.ciapp" not in shared:
        return OWN_FILE, "", {}
    tool = parse_toml(SHARED_FILE, shared).get("tool")
    section = tool.get("ciapp") if isinstance(tool, dict) else None
    if section is not None and not isinstance(section, dict):
        raise ProjectError(f"{SHARED_FILE}: tool.ciapp is no table; write [tool.ciapp]")
    return SHARED_FILE, shared, section or {}


def _read_text(file: Path) -> str | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProjectError(f"{file.name} cannot be read: {error.strerror}; make it a plain file") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST_BYTES:
            raise ProjectError(_no_plain_file(file.name))
        return decode_text(file.name, os.read(descriptor, LARGEST_BYTES))
    finally:
        os.close(descriptor)


def _no_plain_file(name: str) -> str:
    return f"{name} is no plain file of at most {LARGEST_BYTES} bytes"


def _merge(defaults: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in data.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _check_pythons(versions: list[str], name: str, text: str) -> None:
    place = _place(name, text, "python")
    if len(versions) > MOST_PYTHONS:
        raise ProjectError(f"{place}: python has {len(versions)} versions; give at most {MOST_PYTHONS}")
    for number, version in enumerate(versions):
        found = PYTHON_VERSION.fullmatch(version)
        if not found:
            raise ProjectError(f'{place}: python has {version!r}; give versions as "3.11"')
        if int(found[1]) < OLDEST_MINOR:
            raise ProjectError(
                f"{place}: python has {version}; the oldest that is supported is 3.{OLDEST_MINOR}"
            )
        if version in versions[:number]:
            raise ProjectError(f"{place}: python has {version} twice; remove one")


def _check_limits(asked: ProjectLimits, limits: Limits, name: str, text: str) -> None:
    for key, value in msgspec.structs.asdict(asked).items():
        most = getattr(limits, key)
        if value is not None and not 0 < value <= most:
            place = _place(name, text, key)
            raise ProjectError(f"{place}: limits.{key} is {value}; give more than 0 and at most {most}")


def _find_start(checkout: Path, config: UnittestConfig, name: str, text: str) -> UnittestConfig:
    start = config.start or next((one for one in START_FOLDERS if (checkout / one).is_dir()), ".")
    for key, value in (("start", start), ("top", config.top or ".")):
        inside = Path(os.path.normpath(value))
        if inside.is_absolute() or ".." in inside.parts:
            raise ProjectError(
                f"{_place(name, text, key)}: unittest.{key} {value!r} leads out of the checkout"
            )
    if not (checkout / start).is_dir() and not _is_module(checkout, start):
        raise ProjectError(
            f"{_place(name, text, 'start')}: unittest.start {start!r} is no folder of the commit; name one"
        )
    top = config.top or ("." if (checkout / start / "__init__.py").is_file() else start)
    return msgspec.structs.replace(config, start=start, top=top)


def _is_module(checkout: Path, start: str) -> bool:
    """unittest takes a dotted name as well as a folder."""
    return (
        re.fullmatch(r"[A-Za-z_][\w.]*", start) is not None and (checkout / start.replace(".", "/")).is_dir()
    )


def _place(name: str, text: str, said: str) -> str:
    """File and line of the key that a sentence speaks of; the file alone when it is not to be found."""
    quoted = re.search(r"'([\w.\[\]-]+)'", said)
    key = (quoted.group(1) if quoted else said).split(".")[-1].partition("[")[0]
    pattern = re.compile(rf"^\s*(?:\[[^\]]*)?[\"']?{re.escape(key)}[\"']?\s*[=\].]")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return f"{name}:{number}"
    return name
