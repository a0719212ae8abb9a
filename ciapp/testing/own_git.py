"""The `.git` that a run's tests see: small, with borrowed objects, and theirs to do with as they like.

In:  the folder's files, by name.
Out: the folder with those files and nothing else, given to the slot's identity.

The hard idea: to remove a dozen files and make them anew takes a file system longer than git's move to the
next commit. Most tests never touch this folder. So a kept one is looked at before the next run: where names,
inodes and change times, which nobody can set back, are as they were left, new content is written into its
files; else it is made anew.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import WeakKeyDictionary

from ciapp.testing.folders import remove_folder
from ciapp.testing.slot import Identity, Slot

FOLDERS = ("", "objects/", "objects/info/", "refs/")
FORMAT_SHA1 = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
FORMAT_SHA256 = (
    "[core]\n\trepositoryformatversion = 1\n\tbare = false\n[extensions]\n\tobjectFormat = sha256\n"
)

Facts = tuple[int, ...]


def git_files(head: str, config: str = "") -> dict[str, bytes]:
    """The files that git takes a folder for a git directory by; `head` is a commit, or "ref: …"."""
    format_ = FORMAT_SHA256 if len(head) == 64 else FORMAT_SHA1
    return {"HEAD": f"{head}\n".encode("ascii"), "config": (format_ + config).encode("ascii")}


def borrowing_files(head: str, objects: Path, tags: str) -> dict[str, bytes]:
    """The same of one that finds its objects elsewhere, and has these lines of a packed-refs file."""
    return {
        **git_files(head),
        "objects/info/alternates": os.fsencode(f"{objects}\n"),
        "packed-refs": tags.encode("utf-8", "surrogateescape"),
    }


def lay_out_git_folder(folder: Path, files: Mapping[str, bytes], identity: Identity) -> None:
    """Make a git directory where nothing is yet, but perhaps its folder. Raises OSError."""
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    give_away(folder, identity)


def give_away(folder: Path, identity: Identity) -> None:
    """Make a folder, and all that we have put into it, an identity's own, whatever the worker's umask."""
    for path, _, files in os.walk(folder):
        _give(path, 0o755, identity)
        for name in files:
            _give(f"{path}/{name}", 0o644, identity)


class OwnGit:
    """A git directory that is laid out for run after run, while nothing of the last one is at work there."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity
        self._left: dict[str, Facts] = {}  #: name → how it was left; empty: it was never laid out

    def is_as_left(self) -> bool:
        """Whether all of it is there, and nothing was done to any of it."""
        seen = 0
        try:
            for name, facts in self._look():
                if self._left.get(name) != facts:
                    return False
                seen += 1
        except OSError:
            return False
        return seen == len(self._left)

    def lay_out(self, files: Mapping[str, bytes]) -> None:
        """Make it hold these files and nothing else.

        Raises OSError, or CheckoutError when what stands there cannot be removed.
        """
        if not (self._left and self.is_as_left() and self._write_into(files)):
            remove_folder(self._folder)
            lay_out_git_folder(self._folder, files, self._identity)
        self._left = dict(self._look())

    def _look(self) -> Iterator[tuple[str, Facts]]:
        """Each name below, folders before what they hold. Raises OSError when a folder of ours is gone."""
        yield ".", _facts(os.lstat(self._folder))
        for folder in FOLDERS:
            with os.scandir(self._folder / folder) as entries:
                for entry in entries:
                    yield f"{folder}{entry.name}", _facts(entry.stat(follow_symlinks=False))

    def _write_into(self, files: Mapping[str, bytes]) -> bool:
        """Write what differs into the files that are there; False when they are not these files alone."""
        are_files = {name for name, facts in self._look() if stat.S_ISREG(facts[0])}
        if are_files != files.keys():
            return False
        for name, content in files.items():
            descriptor = os.open(self._folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                with open(descriptor, "r+b", closefd=False) as file:
                    if file.read() != content:
                        file.seek(0)
                        file.write(content)
                        # Not emptied first: a file system would then put it on disk at once.
                        file.truncate()
            finally:
                os.close(descriptor)
        return True


_kept: WeakKeyDictionary[Slot, dict[Path, OwnGit]] = WeakKeyDictionary()


def own_git(slot: Slot, folder: Path, identity: Identity) -> OwnGit:
    """What is known of a folder for as long as the slot is held."""
    return _kept.setdefault(slot, {}).setdefault(folder, OwnGit(folder, identity))


def _facts(facts: os.stat_result) -> Facts:
    """What changes when anything is done to a file or folder, its mode first."""
    return (
        facts.st_mode,
        facts.st_dev,
        facts.st_ino,
        facts.st_nlink,
        facts.st_uid,
        facts.st_gid,
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
    )


def _give(path: str, mode: int, identity: Identity) -> None:
    os.chmod(path, mode)  # noqa: PTH101  # asked of each file for each run
    if identity.is_own:
        os.chown(path, identity.uid, identity.gid)
