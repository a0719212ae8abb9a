"""A host's own copy of a repository: bare, shared by all slots, fetched into only when a commit is missing.

In:  where to clone from, and a commit.
Out: the commit and all it reaches, in `objects`; a CheckoutError when it cannot be had.

Nothing is ever pruned here, because checkouts borrow the objects; a mirror that turns out to be broken is
built anew aside and put in its place. No configuration but ours applies, nobody is asked for a password.

One slot at a time changes a mirror. While it does, the lock file has a mark in it: whoever finds it there
clears up after one that died or broke off. A slot whose run is taken away waits for nothing any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ciapp.errors import CheckoutError, CiError, FetchError, GitError
from ciapp.git import Repository
from ciapp.testing.fetching import check_stop, run_git
from ciapp.testing.folders import remove_folder
from ciapp.testing.leftovers import clear_leftovers, places_aside

WAIT_S = 0.02  #: between two looks at a lock
UNFINISHED = b"unfinished\n"  #: what stands in the lock file of a mirror that is being changed
SAMPLE = "17"  #: one of the 256 folders of loose objects, which fill up alike
MOST_IN_SAMPLE = 16
MOST_PACKS = 40
#: As many are written one by one as fast as into a pack, which has to be synced; a commit brings three or so.
FEW_OBJECTS = 12
#: Branches and tags, and tips that were force-pushed away while their runs wait.
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+refs/ciapp/*:refs/ciapp/*")
PROTOCOLS = ("file", "git", "http", "https", "ssh")
CONFIG = {
    "core.hooksPath": os.devnull,
    "gc.auto": "0",
    "maintenance.auto": "false",
    "transfer.unpackLimit": str(FEW_OBJECTS),
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "protocol.allow": "never",
    **{f"protocol.{name}.allow": "always" for name in PROTOCOLS},
}
ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": os.environ.get(
        "GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15"
    ),
    "SSH_ASKPASS_REQUIRE": "never",
}
# The repository may belong to another user of this host, as hosting tools have it. Fetching runs nothing that
# its owner could have put there, but git has to be told; through configuration it would not be passed on.
UPLOAD_PACK = "git -c safe.directory='*' upload-pack"
OBJECT_TROUBLE = re.compile(
    r"corrupt|missing|bad object|bad tree|inflate|necessary objects|unable to read|not a git repository|"
    r"not a valid object|unable to unpack|could not read [0-9a-f]{40}"
)


def is_object_trouble(said: str) -> bool:
    """Whether git complains of objects on this host that are missing or damaged."""
    return OBJECT_TROUBLE.search(said) is not None


def look_through(commit: str) -> tuple[str, ...]:
    """A look at trees and blobs too: a transfer that was cut off, or a file that was lost, shows here."""
    return ("rev-list", "--objects", "--no-walk", "--quiet", commit, "--")


class Mirror:
    """The objects and refs of one repository on this host."""

    def __init__(
        self,
        state_path: Path,
        name: str,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        mark: Mapping[str, str] | None = None,
    ) -> None:
        """`mark` is the variable by which the sweeper of a slot finds what works for its holder.

        Once `should_stop` says yes, whatever fetches raises StaleAttemptError.
        """
        self.name = name
        self._should_stop = should_stop
        self._mark = mark or {}
        self._state_path = state_path.resolve()
        self.path = self._state_path / "mirrors" / f"{name}.git"
        self.clone_url = ""  #: where the last commit asked for was to come from
        self._repository = Repository(self.path, config=CONFIG)

    def of_submodule(self, key: str) -> Mirror:
        """The mirror of another repository, in the same state folder."""
        return Mirror(self._state_path, f"submodules/{key}", should_stop=self._should_stop, mark=self._mark)

    @property
    def objects(self) -> Path:
        """The folder that checkouts borrow objects from."""
        return self.path / "objects"

    def ensure_commit(self, clone_url: str, commit: str) -> None:
        """Fetch a commit unless it is here.

        Raises FetchError when it cannot be had, CheckoutError for trouble of this host's.
        """
        self.clone_url = clone_url
        if self._has(commit):
            return
        with self._exclusively() as lock:
            if self.path.is_dir() and self._repository.stores_commit(commit):
                return
            with self._changing(lock):
                self._obtain(commit, lock)

    def rebuild(self, commit: str) -> None:
        """Fetch everything anew: objects that `commit` needs are missing or damaged."""
        with self._exclusively() as lock, self._changing(lock):
            self._build_anew(commit, lock)

    def remove(self) -> bool:
        """Delete it from this host, where no run needs it any more; whether it was there."""
        folders = [folder for folder in (self.path, *places_aside(self.path)) if folder.is_dir()]
        if folders:
            with self._exclusively():
                for folder in folders:
                    remove_folder(folder)
        return bool(folders)

    def tag_refs(self) -> str:
        """The tags, as lines of git's packed-refs file."""
        try:
            packed = (self.path / "packed-refs").read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            return ""
        kept: list[str] = []
        is_tag = False
        for line in packed.splitlines(keepends=True):
            if not line.startswith("^"):
                is_tag = " refs/tags/" in line
            if is_tag:
                kept.append(line)
        return "".join(kept)

    def _has(self, commit: str) -> bool:
        """Whether the commit is here with all it holds."""
        if not self.path.is_dir():
            return False
        try:
            with self._open_lock() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return self._repository.stores_commit(commit)
        except BlockingIOError:
            # Somebody is fetching, and git unpacks a commit before its trees and files.
            return self._is_whole(commit)

    def _is_whole(self, commit: str) -> bool:
        try:
            self._repository.run(*look_through(commit), env=ENVIRONMENT)
        except GitError:
            return False
        return True

    @contextlib.contextmanager
    def _open_lock(self) -> Iterator[int]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        try:
            yield lock
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[int]:
        """Hold the lock alone; gives it, for programs that are to hold it too."""
        with self._open_lock() as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    check_stop(self._should_stop)
                    time.sleep(WAIT_S)
            yield lock
            # In good order, no helper of git's that stays has a say; else, the lock is theirs until they die.
            fcntl.flock(lock, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _changing(self, lock: int) -> Iterator[None]:
        """Leave the mark in the lock file unless all went well, and clear up where it was left."""
        try:
            if os.fstat(lock).st_size:
                clear_leftovers(self.path)
            os.pwrite(lock, UNFINISHED, 0)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        try:
            yield
        except CiError:
            # At once, for want of room may be why. The mark stays: what was killed may still be dying.
            with contextlib.suppress(OSError, CheckoutError):
                clear_leftovers(self.path)
            raise
        os.ftruncate(lock, 0)

    def _obtain(self, commit: str, lock: int) -> None:
        """Fetch a commit into the mirror, such as that is."""
        if not self.path.is_dir():
            self._build_anew(commit, lock)
            return
        try:
            try:
                self._fetch_and_tidy(commit, lock)
            except GitError:
                # A machine that went down in mid-fetch would cost each further fetch its attempt.
                if not self._repository.clear_locks():
                    raise
                self._fetch_and_tidy(commit, lock)
        except GitError as error:
            if not is_object_trouble(str(error)):
                raise self._cannot_be_fetched(commit, error) from error
            self._build_anew(commit, lock)

    def _build_anew(self, commit: str, lock: int) -> None:
        """Replace the mirror by a fresh one, which stands aside until it is whole."""
        fresh, stale = places_aside(self.path)
        for folder in (fresh, stale):
            remove_folder(folder)
        object_format = "sha256" if len(commit) == 64 else "sha1"
        repository = Repository(fresh, config=CONFIG)
        try:
            # Readable by the slots' identities, whatever the worker's umask.
            shape = ("--bare", "--shared=0644", "--template=", f"--object-format={object_format}")
            self._git(repository, lock, "init", "--quiet", *shape, str(fresh))
            self._fetch_into(repository, commit, lock)
        except GitError as error:
            raise self._cannot_be_fetched(commit, error) from error
        if self.path.exists():
            self.path.rename(stale)
        fresh.rename(self.path)
        remove_folder(stale)

    def _fetch_and_tidy(self, commit: str, lock: int) -> None:
        self._fetch_into(self._repository, commit, lock)
        self._tidy(lock)

    def _tidy(self, lock: int) -> None:
        """Pack what many small fetches have left, without dropping anything."""
        sample, packs = self.objects / SAMPLE, self.objects / "pack"
        loose = len(list(sample.iterdir())) if sample.is_dir() else 0
        if loose > MOST_IN_SAMPLE or len(list(packs.glob("*.pack"))) > MOST_PACKS:
            clear_leftovers(self.path)
            self._git(self._repository, lock, "repack", "--quiet", "--geometric=2", "-d")

    def _fetch_into(self, repository: Repository, commit: str, lock: int) -> None:
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        if "://" not in self.clone_url and self.clone_url.startswith("/"):
            options.append(f"--upload-pack={UPLOAD_PACK}")
        self._git(repository, lock, "fetch", "--prune", *options, "--", self.clone_url, *REFSPECS)
        if not repository.has_commit(commit):
            # Not below any ref: forced away before it could be pinned. Servers may still give it by its id.
            self._git(repository, lock, "fetch", *options, "--", self.clone_url, commit)
        self._git(repository, lock, *look_through(commit))
        self._git(repository, lock, "pack-refs", "--all")

    def _git(self, repository: Repository, lock: int, *words: str) -> None:
        environment = {**ENVIRONMENT, **self._mark}
        run_git(repository, *words, environment=environment, lock=lock, should_stop=self._should_stop)

    def _cannot_be_fetched(self, commit: str, error: GitError) -> FetchError:
        return FetchError(f"{commit} cannot be fetched from {self.clone_url}: {error}; see `ciapp doctor`")

    def _cannot_be_written(self, error: OSError) -> CheckoutError:
        return CheckoutError(f"mirror {self.path} cannot be written: {error.strerror}; check state_dir")
