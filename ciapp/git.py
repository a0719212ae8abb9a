"""The one door to git.

In:  a git directory and the words of a git command.
Out: what git printed, whole or line by line; a GitError of one sentence when git said no.

git exports GIT_DIR and its kin to hooks: a command that inherits them works on the pushed repository,
whatever directory it was given. So nothing named GIT_* reaches git from our own environment, but for the
few variables that say how to reach a remote.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import msgspec

# GitPython refuses to be imported where there is no git: also by `ciapp doctor`, which would say so.
os.environ["GIT_PYTHON_REFRESH"] = "quiet"

from git.cmd import Git
from git.exc import GitCommandError, GitCommandNotFound
from gitdb.db import LooseObjectDB, PackedDB
from gitdb.exc import ODBError

from ciapp.errors import GitError

#: Variables that tell git how to reach a remote; every other GIT_* variable is dropped.
TRANSPORT_VARIABLES = frozenset(
    {"GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_NO_VERIFY", "GIT_ASKPASS", "GIT_EXEC_PATH"}
)
LOCK_HELD_S = 5.0  #: git holds a lock on refs for moments; one that stays for so long is nobody's
REF_LOG_BYTES = 1 << 20  #: read of a ref's log: its last 7,000 changes or so
REF_LOG_ENTRY = re.compile(rb"^([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ", re.MULTILINE)
NO_ANSWER = "fatal: Could not read from remote repository"  #: git, when ssh before it said why
NULL_IDS = frozenset({"0" * 40, "0" * 64})  #: what git writes for "no such object", SHA-1 and SHA-256


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One commit, as git log tells of it. Bytes that are not UTF-8 are surrogate escapes."""

    id: str
    tree: str
    parents: tuple[str, ...]  #: the first is the mainline
    author: str  #: "Name <address>"
    subject: str
    committed_at: datetime  #: aware, UTC


class Object(msgspec.Struct, frozen=True):
    """What a name stands for."""

    id: str
    kind: str  #: blob, tree, commit or tag
    size: int  #: bytes


def scrub_environment() -> None:
    """Drop the GIT_* variables of a calling git from this process; GitPython hands on what is left."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        if name not in TRANSPORT_VARIABLES:
            del os.environ[name]
    os.environ["GIT_TERMINAL_PROMPT"] = "0"


scrub_environment()


class Repository:
    """A git directory (bare, or the .git of a work tree), reached through git's own commands."""

    def __init__(self, git_dir: Path, *, config: Mapping[str, str] | None = None) -> None:
        """`config` is added to each command as `-c name=value`."""
        self.git_dir = git_dir
        # Anybody who may push may say by refs/replace/ that a commit is another one: a tree that nobody tests
        # would stand in the ledger, and the result of that tree would be reused.
        self._options = ["--no-replace-objects", f"--git-dir={git_dir}"]
        for name, value in (config or {}).items():
            self._options += ["-c", f"{name}={value}"]
        # Commands start from the root: a git directory that vanishes must be git's error, not a chdir's.
        self._git = Git("/")

    def run(self, *words: str, stdin: str | None = None, **options: Any) -> str:
        """What git printed, without its last newline. Raises GitError, which says what git said."""
        command = ["git", *self._options, *words]
        with _fed(stdin) as feed:
            try:
                return str(self._git.execute(command, istream=feed, **options))
            except (GitCommandError, GitCommandNotFound) as error:
                raise _as_git_error(words, self.git_dir, error) from error

    def lines(self, *words: str, stdin: str | None = None) -> Iterator[str]:
        """What git prints, line by line while it prints, so that a long answer takes no memory."""
        command = ["git", *self._options, *words]
        with _fed(stdin) as feed:
            try:
                process: Any = self._git.execute(command, istream=feed, as_process=True)
                for line in process.stdout:
                    yield line.decode("utf-8", "surrogateescape").rstrip("\n")
                process.wait()
            except (GitCommandError, GitCommandNotFound) as error:
                raise _as_git_error(words, self.git_dir, error) from error

    def start(self, *words: str, **options: Any) -> Any:
        """git at work, as GitPython wraps a Popen, with nothing on stdin; it is ended once nobody holds it.

        What it complains of is to be read from its stderr; what it prints is lost.
        """
        command = ["git", *self._options, *words]
        try:
            return self._git.execute(command, as_process=True, with_stdout=False, **options)
        except GitCommandNotFound as error:
            raise _as_git_error(words, self.git_dir, error) from error

    def objects(self, names: Sequence[str]) -> list[Object | None]:
        """What each name stands for ("main", "HEAD:README.md"); None for one that stands for nothing here."""
        if not names:
            return []
        printed = self.run(
            "cat-file",
            "--batch-check=%(objectname) %(objecttype) %(objectsize)",
            "--buffer",
            stdin="".join(f"{name}\n" for name in names),
        )
        found: list[Object | None] = []
        for line in printed.split("\n"):
            words = line.split(" ")
            known = len(words) == 3 and words[2].isdecimal()
            found.append(Object(words[0], words[1], int(words[2])) if known else None)
        return found

    def contents(self, ids: Sequence[str]) -> Iterator[bytes]:
        """The content of each object, one after the other. Raises GitError for one that is not there."""
        if not ids:
            return
        words = ("cat-file", "--batch", "--buffer")
        command = ["git", *self._options, *words]
        with TemporaryFile() as feed:
            feed.write("".join(f"{one}\n" for one in ids).encode())
            feed.seek(0)
            try:
                process: Any = self._git.execute(command, istream=feed, as_process=True)
                for one in ids:
                    head = process.stdout.readline().split()
                    if len(head) != 3:
                        raise GitError(f"object {one} is missing from {self.git_dir}; run `git fsck` there")
                    content = process.stdout.read(int(head[2]) + 1)
                    if len(content) <= int(head[2]):
                        raise GitError(f"git cat-file broke off in {self.git_dir} at object {one}")
                    yield content[:-1]
                process.wait()
            except (GitCommandError, GitCommandNotFound) as error:
                raise _as_git_error(words, self.git_dir, error) from error

    def refs(self) -> dict[str, str]:
        """Every ref and the object it names, tags unpeeled."""
        listed = self.run("for-each-ref", "--format=%(objectname) %(refname)")
        return {name: value for value, name in (line.split(" ", 1) for line in listed.split("\n") if line)}

    def ref_log(self, ref: str) -> list[tuple[str, str]]:
        """The latest changes of a ref that git has noted, newest first: old value, new value.

        Empty where it notes none. Read from its file: git itself tells the new values alone.
        """
        if ".." in ref:  # is no ref, and would lead elsewhere
            return []
        try:
            with (self.git_dir / "logs" / ref).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - REF_LOG_BYTES))
                found = REF_LOG_ENTRY.findall(file.read(REF_LOG_BYTES))
        except OSError:
            return []
        return [(old.decode(), new.decode()) for old, new in reversed(found)]

    def has_commit(self, commit: str) -> bool:
        """Whether the commit and its tree are here."""
        try:
            self.run("cat-file", "-e", f"{commit}^{{tree}}")
        except GitError:
            return False
        return True

    def clear_locks(self, below: str = "", *, held_s: float = LOCK_HELD_S) -> bool:
        """Remove the locks on refs that a git which was killed has left; False when there was no lock.

        Only for a git directory, or a folder below it, that nobody but the caller and its like writes to. A
        lock that changes within `held_s` is somebody's.
        """
        found = left = _locks(self.git_dir / below)
        until_s = time.monotonic() + held_s
        while left and time.monotonic() < until_s:
            time.sleep(0.1)
            left &= _locks(self.git_dir / below)
        for lock, _ in left:
            lock.unlink(missing_ok=True)
        return bool(found)

    def stores_commit(self, commit: str) -> bool:
        """As `has_commit`, in most cases without starting git, which takes longer to start than to look."""
        try:
            tree = _read_tree_id(self.git_dir / "objects", commit)
            if tree and _find(self.git_dir / "objects", tree):
                return True
        except (OSError, ValueError, AssertionError, AttributeError, ODBError, zlib.error):
            pass  # damaged, empty, or just being replaced: git knows better
        return self.has_commit(commit)

    def resolve_commit(self, revision: str) -> str:
        """The commit that a revision names, peeled. Raises GitError when it names none."""
        return self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


def _locks(folder: Path) -> set[tuple[Path, int]]:
    """git's locks in a folder and on the refs below it, each with what tells it from a later one."""
    found = set()
    for lock in (*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")):
        with suppress(FileNotFoundError):
            found.add((lock, lock.stat().st_ino))
    return found


def _find(objects: Path, object_id: str) -> LooseObjectDB | PackedDB | None:
    """Where an object is stored; None when it is not, or when that cannot be told here."""
    if len(object_id) != 40:  # gitdb knows no SHA-256
        return None
    name = bytes.fromhex(object_id)
    loose, packs = _stores(str(objects))
    if loose.has_object(name):
        return loose
    packs.update_cache()
    return packs if packs.has_object(name) else None


def _read_tree_id(objects: Path, commit: str) -> str:
    """The tree of a commit; empty when it is not found."""
    store = _find(objects, commit)
    if store is None:
        return ""
    start: bytes = store.stream(bytes.fromhex(commit)).read(len("tree ") + 40)
    return start.removeprefix(b"tree ").decode("ascii")


@lru_cache(maxsize=8)
def _stores(objects: str) -> tuple[LooseObjectDB, PackedDB]:
    """A repository's loose objects and its packs, which stay open."""
    return LooseObjectDB(objects), PackedDB(f"{objects}/pack")


class WorkTree:
    """A clone that somebody works in, for the demo: commands run in it, by an author of its own."""

    def __init__(self, folder: Path, author: str, address: str) -> None:
        self._git = Git(folder)
        who = {"NAME": author, "EMAIL": address}
        # How git is set up on this machine must not matter, and a fresh one has no user.name yet.
        self._environment = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"} | {
            f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()
        }

    def run(self, *words: str) -> tuple[str, str]:
        """What git printed, on stdout and on stderr. Raises GitError."""
        try:
            _, printed, said = self._git.execute(
                ["git", *words], with_extended_output=True, env=self._environment
            )
        except (GitCommandError, GitCommandNotFound) as error:
            raise _as_git_error(words, Path(str(self._git.working_dir)), error) from error
        return str(printed), str(said)


class OwnTree:
    """A work tree that its user works in, with git as they have set it up. Nothing is written to it."""

    def __init__(self, folder: Path) -> None:
        self._git = Git(folder)
        self.folder = folder

    def run(self, *words: str) -> str:
        """What git printed, without its last newline. Raises GitError."""
        try:
            # Even `git status` would write to the index, which somebody may just be using.
            return str(self._git.execute(["git", "--no-optional-locks", *words]))
        except (GitCommandError, GitCommandNotFound) as error:
            raise _as_git_error(words, self.folder, error) from error

    def ask(self, *words: str) -> str:
        """As `run`; empty where git has no answer."""
        try:
            return self.run(*words)
        except GitError:
            return ""


def git_version() -> tuple[int, ...]:
    """The version of the git on this machine; (2, 39, 5). Raises GitError without one."""
    try:
        return tuple(Git().version_info)
    except GitCommandNotFound as error:
        raise GitError("there is no git on the PATH; install it") from error


def git_failure(words: Sequence[str], git_dir: Path, *, status: object, said: str) -> GitError:
    """What to raise for a command that ended with a status other than 0, having said this."""
    lines = said.strip().splitlines() or [f"exit status {status}"]
    # What follows git's own "fatal:" is advice, as "Please make sure … the repository exists."
    first = next((at for at, line in enumerate(lines) if line.startswith("fatal:")), len(lines) - 1)
    fact = lines[first]
    if first and fact.startswith(NO_ANSWER):
        fact = f"{fact.removeprefix('fatal: ').rstrip('.')}: {lines[first - 1].strip()}"
    return GitError(f"git {words[0]} failed in {git_dir}: {fact}")


@contextmanager
def _fed(stdin: str | None) -> Iterator[BinaryIO]:
    """A file that a command reads this from; an empty one for None."""
    with TemporaryFile() as feed:
        if stdin is not None:
            feed.write(stdin.encode("utf-8", "surrogateescape"))
            feed.seek(0)
        yield feed


def _as_git_error(
    words: Sequence[str], git_dir: Path, error: GitCommandError | GitCommandNotFound
) -> GitError:
    said = str(getattr(error, "stderr", "") or "").strip().removeprefix("stderr:").strip(" \n'")
    return git_failure(words, git_dir, status=error.status, said=said)
