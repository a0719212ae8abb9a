"""The Pythons of this host that tests can run under.

In:  the setting `pythons`; PATH, pyenv's and uv's folders.
Out: one interpreter per version, "3.13" → where it is; and why each other one that was named cannot be used.

A candidate is started once and asked what it is: a pyenv shim that leads nowhere, a broken link, a PyPy or a
build without the GIL that answers to the name python3.13 must not be announced. What is kept is the program
behind shims, links and virtual environments, as for the worker's own Python.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Container, Iterator, Mapping
from functools import cache
from pathlib import Path

import msgspec

from ciapp.errors import InstallError
from ciapp.project import OLDEST_MINOR
from ciapp.results.matrix import version_of
from ciapp.settings import ALL_PYTHONS, Settings
from ciapp.testing.environment import Interpreter, default_python
from ciapp.testing.sandbox import SandboxSetting, can_reach

NAME = re.compile(r"python3\.(\d+)")
ANSWERS_WITHIN_S = 10.0
#: Run under each candidate, importing as little as will do, and none of what is installed there. The first
#: path is the interpreter that a virtual environment was made from; "t" is a flag of a build without the GIL.
QUESTION = """
import os, sys
paths = getattr(sys, "_base_executable", None) or sys.executable, sys.base_prefix, sys.base_exec_prefix
facts = sys.implementation.name, getattr(sys, "abiflags", ""), sys.version.split()[0]
sys.stdout.buffer.write(b"\\0".join(map(os.fsencode, facts + tuple(map(os.path.realpath, paths)))))
"""


class Found(msgspec.Struct, frozen=True):
    """What a host has."""

    interpreters: Mapping[str, Interpreter]  #: by version, "3.13", the oldest first
    complaints: tuple[str, ...]  #: a sentence for each that the setting names and that cannot be used


class _UnusableError(Exception):
    """A program is no Python that tests can run under; the sentence says why."""


def find_interpreters(settings: Settings) -> Found:
    """What this host has, as the setting `pythons` asks; looked for once per process, or by `look_again`."""
    return _find(tuple(settings.pythons), settings.sandbox, settings.state_path)


def look_again(settings: Settings) -> Found:
    """The same, looked for anew."""
    _find.cache_clear()
    return find_interpreters(settings)


def stamp_candidates(settings: Settings) -> tuple[tuple[str, int, int], ...]:
    """What changes when a Python is installed, replaced or removed; costs a few milliseconds."""
    named = [Path(one) for one in settings.pythons if one.startswith("/")]
    stamps = []
    for program in (*named, *(one for programs in _candidates().values() for one in programs)):
        try:
            facts = program.stat()
        except OSError:
            continue  # a link that leads nowhere
        stamps.append((str(program), facts.st_ino, facts.st_mtime_ns))
    return tuple(stamps)


def find_interpreter(environment: str, settings: Settings) -> Interpreter:
    """What runs of an environment are tested under. Raises InstallError when this host has no such Python."""
    version = version_of(environment)
    if not version:
        return default_python()
    found = find_interpreters(settings).interpreters
    if version not in found or not found[version].python.exists():
        found = look_again(settings).interpreters  # it came, or was replaced, since this process looked
    if version not in found:
        raise InstallError(f"this worker has no Python {version}; install it")
    return found[version]


def minor_version(version: str) -> str:
    """ "3.13.0rc1" → "3.13"."""
    return ".".join(version.split(".")[:2])


@cache
def _find(wanted: tuple[str, ...], sandbox: SandboxSetting, state_path: Path) -> Found:
    found: dict[str, Interpreter] = {}
    complaints = []
    for named in (one for one in wanted if one.startswith("/")):
        try:
            interpreter = _ask(Path(named))
        except _UnusableError as error:
            complaints.append(f"{named} {error}")
        else:
            found.setdefault(minor_version(interpreter.version), interpreter)
    versions = {one for one in wanted if not one.startswith("/")}
    for version, interpreter in _on_this_host(versions):
        found.setdefault(version, interpreter)
    complaints += [
        f"Python {version} is neither on the PATH nor among those of pyenv and uv"
        for version in sorted(versions - found.keys() - {ALL_PYTHONS}, key=_numbers)
    ]
    for version, interpreter in list(found.items()):
        if not can_reach(sandbox, state_path, interpreter.python):
            complaints.append(
                f"{interpreter.python} is closed to other users, as whom tests run on this host"
            )
            del found[version]
    return Found({version: found[version] for version in sorted(found, key=_numbers)}, tuple(complaints))


def _on_this_host(versions: Container[str]) -> Iterator[tuple[str, Interpreter]]:
    """The interpreters of these versions that are found without being told where: the worker's own first."""
    own = default_python()
    candidates = {minor_version(own.version): [own.python]}
    for minor, programs in _candidates().items():
        candidates.setdefault(f"3.{minor}", []).extend(programs)
    for version, programs in candidates.items():
        if version in versions or ALL_PYTHONS in versions:
            for program in programs:
                try:
                    interpreter = _ask(program)
                except _UnusableError:
                    continue
                if minor_version(interpreter.version) == version:
                    yield version, interpreter
                    break


def _candidates() -> dict[int, list[Path]]:
    """Minor version → programs that are called so, the first choice first; ones too old left out."""
    found: dict[int, list[Path]] = {}
    for folder in _folders():
        try:
            names = sorted(path.name for path in folder.iterdir() if NAME.fullmatch(path.name))
        except OSError:
            continue
        for name in names:
            minor = int(name.partition(".")[2])
            if minor >= OLDEST_MINOR:
                found.setdefault(minor, []).append(folder / name)
    return found


def _folders() -> Iterator[Path]:
    """Where programs may be: the PATH's folders, then what pyenv and uv installed, the newest first."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for folder in map(Path, os.get_exec_path()):
        # A shim starts a shell to find what stands below `versions`.
        if folder.is_absolute() and folder != pyenv / "shims":
            yield folder
    for above in (pyenv / "versions", uv):
        yield from sorted(above.glob("*/bin"), key=lambda folder: _numbers(folder.parent.name), reverse=True)


def _ask(program: Path) -> Interpreter:
    """What a program is. Raises _UnusableError."""
    try:
        done = subprocess.run(
            [program, "-I", "-S", "-c", QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWERS_WITHIN_S,
            check=True,
            cwd="/",
        )
        kind, flags, version, python, prefix, own_prefix = os.fsdecode(done.stdout).split("\0")
    except OSError as error:
        raise _UnusableError(f"cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _UnusableError(f"did not start within {ANSWERS_WITHIN_S:g} s") from error
    except (subprocess.CalledProcessError, ValueError) as error:
        raise _UnusableError("is no Python that works") from error
    if kind != "cpython" or "t" in flags:
        kind = kind if kind != "cpython" else "a Python without the GIL"
        raise _UnusableError(f"is {kind}; tests run under CPython")
    if _numbers(version)[:2] < (3, OLDEST_MINOR):
        raise _UnusableError(f"is Python {version}; the oldest that is supported is 3.{OLDEST_MINOR}")
    return Interpreter(
        python=Path(python),
        version=version,
        readable=tuple(dict.fromkeys((Path(prefix), Path(own_prefix)))),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
