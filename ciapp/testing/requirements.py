"""What install arguments and requirements files ask for, read without running anything.

In:  arguments as `uv pip install` takes them, and the files of the checkout that they name.
Out: `Requirements`: everything in those files, flattened, so that its content says all there is to know.

Arguments are the commit's, and go to a program that runs outside of its sandbox: only options that choose
packages are taken, none that says where to write or which program to run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ciapp.errors import ProjectError
from ciapp.testing.folders import holds_folder
from ciapp.testing.metadata import PYPROJECT, read_dependencies

LARGEST_BYTES = 4 << 20
LARGEST_LINES = 10_000
MOST_PROJECTS = 20  #: folders of one commit that are built
#: Options that choose packages, by their short names too; True: with a value.
OPTIONS = {
    "--default-index": True,
    "--exclude-newer": True,
    "--extra-index-url": True,
    "--find-links": True,
    "--index": True,
    "--index-strategy": True,
    "--index-url": True,
    "--no-binary": True,
    "--no-deps": False,
    "--no-index": False,
    "--only-binary": True,
    "--pre": False,
    "--prerelease": True,
    "--require-hashes": False,
    "--resolution": True,
}
WITHOUT_EFFECT = {"--prefer-binary", "--upgrade"}  #: in an environment that is made anew, from wheels
OURS = {"--requirement": True, "--constraint": True, "--editable": True, "--extra": True, "--group": True}
LONG_NAMES = {
    "-c": "--constraint",
    "--constraints": "--constraint",
    "-e": "--editable",
    "-f": "--find-links",
    "-i": "--index-url",
    "-r": "--requirement",
    "--requirements": "--requirement",
    "-U": "--upgrade",
}
LINE_END = re.compile(
    r"[\0\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
)  #: of any reader of lines; and the end of a text in C
COMMENT = re.compile(r"(^|\s)#.*$")
PATH = re.compile(r"(?P<path>[^\[\];]+?)\s*(?:\[(?P<extras>[^\]]*)\])?\s*(?:;\s*(?P<marker>.*))?")
EDITABLE = re.compile(r"(?:-e\s*|--editable[\s=]\s*)(.*)")
WHEEL = re.compile(r"[A-Za-z0-9._]+-[^/]+\.whl")


class LocalProject(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of the checkout that is to be built and installed."""

    path: str  #: from the checkout's root; "." for the root
    extras: tuple[str, ...] = ()
    first_of: tuple[str, ...] = ()  #: of these extras the first that the built project declares
    marker: str = ""  #: the environments that it is for; empty: all
    is_editable: bool = True


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """What uv.lock pins."""

    digest: str  #: of all that uv reads of it
    words: tuple[str, ...]  #: of `uv export`: which of its packages count


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be installed. Empty: nothing."""

    lines: tuple[str, ...] = ()  #: requirements for the registry, as in a requirements file
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  #: of `uv pip install`
    projects: tuple[LocalProject, ...] = ()
    wheels: tuple[str, ...] = ()  #: wheels that the checkout holds, by path
    lock: Lock | None = None
    files: tuple[str, ...] = ()  #: the files that were read for this


def read_arguments(checkout: Path, arguments: Iterable[str], *, place: str = "install") -> Requirements:
    """What a list of arguments asks for. Raises ProjectError for one that a commit may not give.

    `place` is where they stand, for sentences.
    """
    reader = _Reader(checkout)
    words = list(arguments)
    for word in words:
        if LINE_END.search(word):
            raise ProjectError(f"{place}: {word!r} is more than one line; give each by itself")
    extras = [value for option, value in _pairs(words, place) if option == "--extra"]
    for option, value in _pairs(words, place):
        reader.take(option, value, place, base="", extras=extras)
    return reader.result()


def read_file(checkout: Path, name: str, named_in: str) -> bytes:
    """A file of the checkout. Raises ProjectError when it is none, or leads out of the checkout."""
    file = checkout / name
    try:
        if not file.resolve(strict=True).is_relative_to(checkout.resolve()):
            raise ProjectError(f"{named_in}: {name!r} leads out of the checkout; name a file of the commit")
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ProjectError(f"{named_in}: {name!r} cannot be read: {reason}; commit it") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST_BYTES:
            raise ProjectError(f"{named_in}: {name!r} is no plain file of at most {LARGEST_BYTES} bytes")
        return os.read(descriptor, LARGEST_BYTES)
    finally:
        os.close(descriptor)


class _Reader:
    """Collects what arguments and files ask for."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        self._lines: list[str] = []
        self._constraints: list[str] = []
        self._options: list[str] = []
        self._projects: list[LocalProject] = []
        self._wheels: list[str] = []
        self._files: list[str] = []

    def result(self) -> Requirements:
        return Requirements(
            lines=tuple(dict.fromkeys(self._lines)),
            constraints=tuple(dict.fromkeys(self._constraints)),
            options=tuple(self._options),
            projects=tuple(dict.fromkeys(self._projects)),
            wheels=tuple(dict.fromkeys(self._wheels)),
            files=tuple(dict.fromkeys(self._files)),
        )

    def take(self, option: str, value: str, place: str, *, base: str, extras: Iterable[str] = ()) -> None:
        """One argument, or one line of a file; `base` is the folder that paths in it start from."""
        if option == "--requirement":
            name = _inside(base, value, place)
            if Path(name).name == PYPROJECT:
                self._take_pyproject(name, place, extras, groups=())
            else:
                self._take_file(name, place, self._lines)
        elif option == "--constraint":
            self._take_file(_inside(base, value, place), place, self._constraints)
        elif option == "--group":
            file, _, group = value.rpartition(":")
            self._take_pyproject(_inside(base, file or PYPROJECT, place), place, None, groups=(group,))
        elif option == "--editable":
            if not self._take_path(value, place, base, is_editable=True):
                raise ProjectError(f"{place}: {value!r} is no folder of the commit; name one, or drop -e")
        elif option in OPTIONS:
            self._options += [f"{option}={value}"] if OPTIONS[option] else [option]
        elif not option and not self._take_path(value, place, base, is_editable=False):
            self._lines.append(value)

    def _take_path(self, text: str, place: str, base: str, *, is_editable: bool) -> bool:
        """Take a requirement that is a path of the checkout; whether it is one."""
        found = PATH.fullmatch(text.removeprefix("file:"))
        if found is None or not _looks_like_path(found["path"], is_editable):
            return False
        name = _inside(base, found["path"], place)
        if holds_folder(self._checkout, name):
            extras = tuple(extra.strip() for extra in (found["extras"] or "").split(",") if extra.strip())
            marker = (found["marker"] or "").strip()
            if len(self._projects) >= MOST_PROJECTS:
                raise ProjectError(f"{place}: more than {MOST_PROJECTS} folders to install; name fewer")
            self._projects.append(
                LocalProject(path=name, extras=extras, marker=marker, is_editable=is_editable)
            )
            return True
        with contextlib.suppress(OSError):  # a name that is too long
            if WHEEL.fullmatch(Path(name).name) and (self._checkout / name).is_file():
                self._wheels.append(name)
                return True
        raise ProjectError(f"{place}: {name!r} is neither a folder nor a wheel of the commit; commit it")

    def _take_pyproject(
        self, name: str, place: str, extras: Iterable[str] | None, groups: Iterable[str]
    ) -> None:
        text = read_file(self._checkout, name, place)
        self._files.append(name)
        self._lines += read_dependencies(name, text, extras=extras, groups=groups)

    def _take_file(self, name: str, place: str, into: list[str]) -> None:
        """The lines of a requirements file, and of those that it includes."""
        if name in self._files:
            return
        text = read_file(self._checkout, name, place).decode("utf-8-sig", "surrogateescape")
        self._files.append(name)
        base = str(Path(name).parent)
        for number, line in logical_lines(text):
            here = f"{name}:{number}"
            if len(into) > LARGEST_LINES:
                raise ProjectError(f"{here}: more than {LARGEST_LINES} requirements")
            if not line.startswith("-"):
                if into is self._constraints or not self._take_path(line, here, base, is_editable=False):
                    into.append(line)
                continue
            editable = EDITABLE.fullmatch(line)
            if editable:
                self.take("--editable", editable[1], here, base=base)
                continue
            for option, value in _pairs(_split(line, here), here):
                if option == "--requirement" and into is self._constraints:
                    self._take_file(_inside(base, value, here), here, into)
                else:
                    self.take(option, value, here, base=base)


def _pairs(words: list[str], place: str) -> Iterator[tuple[str, str]]:
    """Options with their values; a requirement has no option."""
    waiting = iter(words)
    for word in waiting:
        if not word.startswith("-"):
            yield "", word
            continue
        name, is_joined, value = word.partition("=")
        if not is_joined and len(word) > 2 and word[:2] in LONG_NAMES and word[1] != "-":
            name, is_joined, value = word[:2], "=", word[2:]
        option = LONG_NAMES.get(name, name)
        takes_value = (OPTIONS | OURS).get(option)
        if option in WITHOUT_EFFECT:
            continue
        if takes_value is None:
            raise ProjectError(f"{place}: option {name!r} is none that a commit may give; leave it out")
        if takes_value and not is_joined:
            value = next(waiting, "")
        if takes_value != bool(value) or "\0" in value:
            raise ProjectError(f"{place}: option {name!r} {'needs a' if takes_value else 'takes no'} value")
        yield option, value


def _split(line: str, place: str) -> list[str]:
    try:
        return shlex.split(line, posix=True)
    except ValueError as error:
        raise ProjectError(f"{place}: {line!r} cannot be read: {error}") from error


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, with the number that each begins at."""
    held, begins = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        begins = begins if held else number
        line = COMMENT.sub("", line)
        if line.endswith("\\"):
            held += line[:-1].rstrip() + " "
            continue
        whole, held = (held + line).strip(), ""
        if whole:
            yield begins, whole
    if held.strip():
        yield begins, held.strip()


def _looks_like_path(text: str, is_editable: bool) -> bool:
    """As installers tell a path from the name of a package: by how it is written, not by what is there."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) or "@" in text:
        return False
    return is_editable or text.startswith(".") or "/" in text or text.endswith(".whl")


def _inside(base: str, path: str, place: str) -> str:
    """A path from the checkout's root."""
    name = os.path.normpath(Path(base, path))
    if "://" in path or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise ProjectError(f"{place}: {path!r} is no path in the checkout; name one of the commit")
    return name
