"""A working tree as its user has it: which files belong to it, and what git says of them.

In:  a folder, in a git repository or not.
Out: a `WorkingTree`, and its files: those that git tracks, with those that are new and not ignored.

Without git, everything belongs to it but what programs have made for themselves (caches, environments).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ciapp.errors import GitError, UsageError
from ciapp.git import OwnTree

#: Folders with such a file in them are left out where no git says what is ignored.
MADE_BY_PROGRAMS = ("pyvenv.cfg", "CACHEDIR.TAG")
LEFT_OUT = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules"})


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The commit that a working tree stands on."""

    commit: str
    tree: str
    author: str
    subject: str
    refs: tuple[str, ...]  #: the branch that is checked out; empty when none is


class GitFolder(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy of the tree needs to be a repository as well."""

    objects: tuple[Path, ...]  #: the tree's own objects, then those that it borrows
    index: Path
    shallow: Path
    tags: str  #: as lines of git's packed-refs file


class WorkingTree(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that somebody works in."""

    path: Path  #: absolute, links resolved
    git: GitFolder | None  #: None: it is no work tree of git's
    head: Head | None  #: None as well before the first commit
    is_clean: bool  #: whether its files are those of the commit, no more and no fewer

    @property
    def key(self) -> str:
        """Names the folder, for what is kept of it."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Paths from the root with what lstat says: files and links, each once."""
        return _tracked_and_new(f"{self.path}/") if self.git else _all_files(f"{self.path}/")


def find_tree(path: Path) -> WorkingTree:
    """The working tree that a folder is in. Raises UsageError when it is none, GitError for git's trouble."""
    folder = path.resolve()
    if not folder.is_dir():
        raise UsageError(f"{path} is no folder; name one that holds a project")
    held = next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)
    if held is None and (folder / "HEAD").is_file() and (folder / "objects").is_dir():
        raise UsageError(f"{path} is a bare repository; name a work tree")
    if held is None:
        return _plain(folder)
    git = OwnTree(folder)
    try:
        top = Path(git.run("rev-parse", "--show-toplevel")).resolve()
    except GitError as error:
        if "dubious ownership" not in str(error):
            raise
        raise UsageError(
            f"{held} is another user's repository; if you trust it, tell git so with"
            f" `git config --global --add safe.directory {held}`"
        ) from error
    if top != folder and git.ask("check-ignore", "--", str(folder)):
        return _plain(folder)  # as a project is that stands in a home folder kept in git
    git = OwnTree(top)
    head = _head(git)
    clean = head is not None and not git.run("status", "--porcelain", "--untracked-files=normal")
    return WorkingTree(path=top, git=_git_folder(git), head=head, is_clean=clean)


def _plain(folder: Path) -> WorkingTree:
    return WorkingTree(path=folder, git=None, head=None, is_clean=False)


def _head(git: OwnTree) -> Head | None:
    told = git.ask("log", "--max-count=1", "--format=%H%x00%T%x00%an <%ae>%x00%s", "--encoding=UTF-8", "HEAD")
    if not told:
        return None
    commit, tree, author, subject = told.split("\0", 3)
    branch = git.ask("symbolic-ref", "--quiet", "HEAD")
    return Head(commit=commit, tree=tree, author=author, subject=subject, refs=(branch,) if branch else ())


def _git_folder(git: OwnTree) -> GitFolder:
    objects, index, shallow = (
        git.folder / git.run("rev-parse", "--git-path", name) for name in ("objects", "index", "shallow")
    )
    listed = git.run("for-each-ref", "--format=%(objectname) %(refname) %(*objectname)", "refs/tags")
    tags = []
    for line in listed.splitlines():
        value, name, peeled = line.split(" ")
        tags += [f"{value} {name}\n"] + ([f"^{peeled}\n"] if peeled else [])
    return GitFolder(
        objects=tuple(_with_borrowed(objects.resolve())),
        index=index,
        shallow=shallow,
        tags="".join(tags),
    )


def _with_borrowed(objects: Path) -> Iterator[Path]:
    """A folder of objects, and all that it borrows from."""
    waiting, seen = [objects], set[Path]()
    while waiting:
        folder = waiting.pop(0)
        if folder in seen or not folder.is_dir():
            continue
        seen.add(folder)
        yield folder
        alternates = folder / "info" / "alternates"
        if alternates.is_file():
            waiting += [(folder / line).resolve() for line in alternates.read_text("utf-8").splitlines()]


def _tracked_and_new(root: str, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """What git lists in a work tree, submodules and other repositories in it included."""
    listed = OwnTree(Path(root + prefix)).run("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in dict.fromkeys(listed.split("\0")):
        path = prefix + name
        try:
            facts = os.lstat(root + path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # deleted, but git has not been told
        if _is_copied(facts):
            yield path, facts
        elif name and os.path.lexists(f"{root}{path}/.git"):
            yield from _tracked_and_new(root, f"{path.rstrip('/')}/")


def _all_files(root: str) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(root + prefix) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    if _is_copied(facts):
                        yield prefix + entry.name, facts
                elif entry.name not in LEFT_OUT and not _is_made_by_programs(entry.path):
                    waiting.append(f"{prefix}{entry.name}/")


def _is_copied(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode)


def _is_made_by_programs(folder: str) -> bool:
    return any(os.path.lexists(f"{folder}/{name}") for name in MADE_BY_PROGRAMS)
