"""What the build of a project may see of it, so that its result follows from what is known to be the same.

In:  a project's folder in a checkout, and how it is built.
Out: a digest, and a copy of the folder to build in.

A project that is installed editable is built once for many commits. Whatever its build reads must then be
part of the key under which the result is kept; and what is not part of it must be out of reach, or one commit
could slip code into the environment of others. So the copy is a skeleton: names of all files, contents of
those alone that builds are known to read (`is_input`), and the rest closed. A build that reads more fails on
it, and is then done for each tree by itself, on a full copy.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from ciapp.testing.metadata import Build

LARGEST_INPUT = 1 << 20
DEPTH = 2  #: folders so far below the root, and below src/, are part of the digest by name
SOURCE_ROOT = "src"
#: What is no source: history, and what builds make themselves, though a commit may hold it by mistake.
NEVER_COPIED = re.compile(r"\.git|\.hg|__pycache__|.*\.egg-info")
#: Where versions stand that builds look up.
VERSION_FILE = re.compile(r"_*(init|version|about|meta|metadata|pkginfo|release)_*\.(py|txt)|VERSION")
#: What builds leave behind that nothing of the project needs.
LITTER = re.compile(r".*\.(egg-info|dist-info|pyc|o)|build|dist|\.eggs|__pycache__|\..*")


class Source(msgspec.Struct, frozen=True):
    """A file, folder or link of a project."""

    name: str  #: from the project's root
    facts: os.stat_result

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_ISREG(self.facts.st_mode)


def digest_inputs(project: Path, build: Build) -> str:
    """What a build on the skeleton depends on: contents of inputs, and names near the top."""
    digest = hashlib.sha256()
    for source in sorted(_walk(project, deepest=DEPTH + 1), key=lambda one: one.name):
        depth = len(_below_source_root(source.name))
        if source.is_file and is_input(source, build):
            content = hashlib.sha256((project / source.name).read_bytes()).hexdigest()
        elif depth > (1 if source.is_file else DEPTH) or _is_for_tests(source.name):
            continue
        elif source.is_file and not source.name.endswith(".py"):
            content = "too large"
        else:
            content = ""
        digest.update(f"{source.name!r} {stat.S_IFMT(source.facts.st_mode)} {content}\n".encode())
    return digest.hexdigest()


def is_input(source: Source, build: Build) -> bool:
    """Whether builds may read a file of the skeleton."""
    path = PurePosixPath(source.name)
    if source.facts.st_size > LARGEST_INPUT:
        return False
    if any(path.is_relative_to(os.path.normpath(folder)) for folder in build.backend_path):
        return True
    if len(path.parts) == 1:
        return path.suffix != ".py" or path.name == "setup.py"
    if path.suffix == ".txt" and "requirements" in path.parts[0]:
        return True
    return len(_below_source_root(source.name)) <= 2 and VERSION_FILE.fullmatch(path.name) is not None


def copy_sources(project: Path, target: Path, build: Build, *, full: bool) -> None:
    """Lay the project out in a folder that does not exist yet; a skeleton unless it is to be full."""
    target.mkdir()
    for source in _walk(project):
        origin, copy = project / source.name, target / source.name
        if stat.S_ISDIR(source.facts.st_mode):
            copy.mkdir()
        elif stat.S_ISLNK(source.facts.st_mode):
            copy.symlink_to(origin.readlink())
        elif source.is_file and (full or is_input(source, build)):
            shutil.copyfile(origin, copy, follow_symlinks=False)
            copy.chmod(0o755 if source.facts.st_mode & stat.S_IXUSR else 0o644)
        elif source.is_file:
            copy.touch(mode=0)


def list_made(project: Path, before: Path) -> tuple[list[str], list[str]]:
    """Files that a build made in its copy, and those of the project that it wrote to; litter left out."""
    made, changed = [], []
    for source in _walk(project):
        if not source.is_file or any(LITTER.fullmatch(part) for part in PurePosixPath(source.name).parts):
            continue
        try:
            original = os.lstat(before / source.name)
        except OSError:
            made.append(source.name)
            continue
        if source.facts.st_size and source.facts.st_size != original.st_size:
            changed.append(source.name)
    return sorted(made), sorted(changed)


def _walk(project: Path, deepest: int | None = None) -> Iterator[Source]:
    """Everything in a folder, no link followed."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(project / folder) as entries:
            for entry in entries:
                if NEVER_COPIED.fullmatch(entry.name):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                yield Source(name, entry.stat(follow_symlinks=False))
                is_near = deepest is None or len(_below_source_root(name)) < deepest
                if is_near and entry.is_dir(follow_symlinks=False):
                    waiting.append(name)


def _below_source_root(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    return parts[1:] if parts[0] == SOURCE_ROOT else parts


def _is_for_tests(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and parts[0] in ("test", "tests")
