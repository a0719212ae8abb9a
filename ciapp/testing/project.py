"""A commit's own configuration: `.ciapp.toml` at its root, or `[tool.ciapp]` in its pyproject.toml.

In:  the checkout, or a way to read the two files; the server's defaults for the repository, and its limits.
Out: one `Project`; a ProjectError that names file, line and what is wrong; a SettingsError when it is the
     server's defaults that are.

The files are the commit's, so nothing about them is believed: they may be links, folders, or huge. The intake
reads them from git's objects, to know under which Pythons a commit is to be tested, and a worker from the
checkout; both read the same.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ciapp.errors import ProjectError, SettingsError
from ciapp.project import Project, UnfitError, UnittestConfig, check_project
from ciapp.settings import Limits
from ciapp.testing.folders import holds_folder
from ciapp.testing.requirements import read_arguments
from ciapp.testing.toml import line_of, parse_toml

OWN_FILE, SHARED_FILE, SHARED_TABLE = ".ciapp.toml", "pyproject.toml", ("tool", "ciapp")
LARGEST_BYTES = 1 << 20
START_FOLDERS = ("tests", "test")

#: The text of a file at the commit's root, by its name; None when there is none. Raises ProjectError for what
#: is no plain file, or cannot be read as text.
ReadText = Callable[[str], str | None]


def load_project(checkout: Path, defaults: dict[str, Any], limits: Limits) -> Project:
    """What applies to this checkout: `read_project` with the start folder filled in, which must be there.

    Raises SettingsError when it is the server's defaults that are unusable.
    """
    project, written = _read(lambda file: _read_text(checkout / file), defaults, limits)
    if isinstance(project.install, list):
        read_arguments(checkout, project.install, place=f"{written.at('install')}install")
    return msgspec.structs.replace(project, unittest=_find_start(checkout, project.unittest, written))


def named_pythons(checkout: Path, limits: Limits) -> list[str]:
    """The versions that a checkout asks to be tested under. Raises ProjectError when that is unusable."""
    return _read(lambda file: _read_text(checkout / file), {}, limits)[0].python


def read_project(read: ReadText, defaults: dict[str, Any], limits: Limits) -> Project:
    """What the commit's two files say. Raises ProjectError when that is unusable.

    `defaults` are the server's, and stand where the commit says nothing; unusable ones are a ProjectError
    here, for a push has to be recorded all the same.
    """
    try:
        return _read(read, defaults, limits)[0]
    except SettingsError as error:
        raise ProjectError(str(error)) from error


def decode_text(name: str, content: bytes) -> str:
    """The text of a configuration file; raises ProjectError when it is too large, or none."""
    if len(content) > LARGEST_BYTES:
        raise ProjectError(_no_plain_file(name))
    if content.startswith(codecs.BOM_UTF8):
        raise ProjectError(f"{name}:1: it begins with a byte order mark, which TOML has none of; remove it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProjectError(f"{name}:{line}: not UTF-8: {error.reason} at byte {error.start}") from error


def lower_limits(limits: Limits, project: Project) -> Limits:
    """The server's limits with what the commit asks for."""
    asked = msgspec.structs.asdict(project.limits)
    return msgspec.structs.replace(
        limits, **{name: value for name, value in asked.items() if value is not None}
    )


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, and the text that it stands in."""

    data: dict[str, Any]
    file: str = ""  #: empty: it is the server's
    text: str = ""
    table: tuple[str, ...] = ()  #: the table of the file that it is

    def at(self, *path: str) -> str:
        """How a sentence begins that speaks of a key: file and line."""
        line = line_of(self.text, (*self.table, *path))
        return f"{self.file}:{line}: " if line else f"{self.file}: " if self.file else ""


def _read(read: ReadText, defaults: dict[str, Any], limits: Limits) -> tuple[Project, _Written]:
    """The project, and what the commit says of it."""
    written = _read_configuration(read)
    _check(written, limits)
    try:
        _check(_Written(data=defaults), limits)
    except ProjectError as error:
        raise SettingsError(f"[repository.NAME.project] in the server's settings: {error}") from error
    return msgspec.convert(_merge(defaults, written.data), Project), written


def _read_configuration(read: ReadText) -> _Written:
    own = read(OWN_FILE)
    if own is not None:
        return _Written(file=OWN_FILE, text=own, data=parse_toml(OWN_FILE, own))
    shared = read(SHARED_FILE)
    if shared is None or SHARED_TABLE[-1] not in shared:
        return _Written(file=OWN_FILE, data={})
    tool = parse_toml(SHARED_FILE, shared).get("tool")
    section = tool.get("ciapp", {}) if isinstance(tool, dict) else {}
    written = _Written(file=SHARED_FILE, text=shared, table=SHARED_TABLE, data=section)
    if not isinstance(section, dict):
        raise ProjectError(f"{written.at()}tool.ciapp is no table; write [tool.ciapp]")
    return written


def _read_text(file: Path) -> str | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        said = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise ProjectError(f"{file.name} {said}; make it a plain file") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST_BYTES:
            raise ProjectError(_no_plain_file(file.name))
        return decode_text(file.name, os.read(descriptor, LARGEST_BYTES))
    finally:
        os.close(descriptor)


def _no_plain_file(name: str) -> str:
    return f"{name} is no plain file of at most {LARGEST_BYTES} bytes; make it one"


def _merge(defaults: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in data.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _check(written: _Written, limits: Limits) -> None:
    """Raise ProjectError for what does not fit the model, or goes past its bounds."""
    try:
        check_project(written.data, msgspec.structs.asdict(limits))
    except UnfitError as error:
        raise ProjectError(written.at(*error.path) + error.sentence) from error


def _find_start(checkout: Path, config: UnittestConfig, written: _Written) -> UnittestConfig:
    start = config.start or next((one for one in START_FOLDERS if holds_folder(checkout, one)), ".")
    for key, value in (("start", start), ("top", config.top or ".")):
        inside = Path(os.path.normpath(value))
        if inside.is_absolute() or ".." in inside.parts:
            raise ProjectError(f"{_told(written, key, value)} leads out of the checkout; name a folder in it")
        if not holds_folder(checkout, value) and not (key == "start" and _is_module(checkout, value)):
            raise ProjectError(f"{_told(written, key, value)} is no folder of the commit; name one")
    is_held = Path(os.path.normpath(start)).is_relative_to(os.path.normpath(config.top or "."))
    if not is_held and holds_folder(checkout, start):
        place = _told(written, "top", config.top)
        raise ProjectError(f"{place} does not hold unittest.start {start!r}; name a folder that does")
    top = config.top or ("." if (checkout / start / "__init__.py").is_file() else start)
    return msgspec.structs.replace(config, start=start, top=top)


def _told(written: _Written, key: str, value: str) -> str:
    """How a sentence begins about a key of [unittest], which the server may have given in its place."""
    if key in written.data.get("unittest", {}):
        return f"{written.at('unittest', key)}unittest.{key} {value!r}"
    return f"{OWN_FILE}: unittest.{key} {value!r}, which the server's settings have for this repository,"


def _is_module(checkout: Path, start: str) -> bool:
    """unittest takes a dotted name as well as a folder."""
    return re.fullmatch(r"[A-Za-z_][\w.]*", start) is not None and holds_folder(
        checkout, start.replace(".", "/")
    )
