"""A host's own copy of a repository: bare, shared by all slots, fetched into only when a commit is missing.

In:  where to clone from, and a commit.
Out: the commit and all it reaches, in `objects`; a CheckoutError when it cannot be had.

Nothing is ever pruned here, because checkouts borrow the objects; a mirror that turns out to be broken is
built anew aside and put in its place. No configuration but ours applies, nobody is asked for a password.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ciapp.errors import CheckoutError, GitError
from ciapp.git import Repository
from ciapp.testing.folders import remove_folder

FETCH_WITHIN_S = 3600
SAMPLE = "17"  #: one of the 256 folders of loose objects, which fill up alike
MOST_IN_SAMPLE = 16
MOST_PACKS = 40
#: Branches and tags, and tips that were force-pushed away while their runs wait.
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+refs/ciapp/*:refs/ciapp/*")
PROTOCOLS = ("file", "git", "http", "https", "ssh")
CONFIG = {
    "core.hooksPath": os.devnull,
    "gc.auto": "0",
    "maintenance.auto": "false",
    "transfer.unpackLimit": "500",
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


class Mirror:
    """The objects and refs of one repository on this host."""

    def __init__(self, state_path: Path, name: str) -> None:
        self.name = name
        self._state_path = state_path.resolve()
        self.path = self._state_path / "mirrors" / f"{name}.git"
        self.clone_url = ""  #: where the last commit asked for was to come from
        self._repository = Repository(self.path, config=CONFIG)

    def of_submodule(self, key: str) -> Mirror:
        """The mirror of another repository, in the same state folder."""
        return Mirror(self._state_path, f"submodules/{key}")

    @property
    def objects(self) -> Path:
        """The folder that checkouts borrow objects from."""
        return self.path / "objects"

    def ensure_commit(self, clone_url: str, commit: str) -> None:
        """Fetch a commit unless it is here. Raises CheckoutError when it cannot be had."""
        self.clone_url = clone_url
        if self._has(commit):
            return
        with self._lock():
            if self.path.is_dir() and self._repository.stores_commit(commit):
                return
            if not self.path.is_dir():
                self._build_anew(commit)
                return
            try:
                try:
                    self._fetch_and_tidy(commit)
                except GitError:
                    # A machine that went down in mid-fetch would cost each further fetch its attempt.
                    if not self._repository.clear_locks():
                        raise
                    self._fetch_and_tidy(commit)
            except GitError as error:
                if not is_object_trouble(str(error)):
                    raise self._cannot_be_fetched(commit, error) from error
                self._build_anew(commit)

    def rebuild(self, commit: str) -> None:
        """Fetch everything anew: objects that `commit` needs are missing or damaged."""
        with self._lock():
            self._build_anew(commit)

    def remove(self) -> bool:
        """Delete it from this host, where no run needs it any more; whether it was there."""
        was_there = self.path.is_dir()
        if was_there:
            with self._lock():
                remove_folder(self.path)
        return was_there

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
            with self._lock(fcntl.LOCK_SH | fcntl.LOCK_NB):
                return self._repository.stores_commit(commit)
        except BlockingIOError:
            # Somebody is fetching, and git unpacks a commit before its trees and files.
            return self._is_whole(commit)

    def _is_whole(self, commit: str) -> bool:
        try:
            self._look_through(self._repository, commit)
        except GitError:
            return False
        return True

    @contextlib.contextmanager
    def _lock(self, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CheckoutError(
                f"mirror {self.path} cannot be written: {error.strerror}; check state_dir"
            ) from error
        try:
            fcntl.flock(lock, operation)
            yield
        finally:
            os.close(lock)

    def _build_anew(self, commit: str) -> None:
        """Replace the mirror by a fresh one, which stands aside until it is whole."""
        fresh, stale = self.path.with_suffix(".new"), self.path.with_suffix(".old")
        for folder in (fresh, stale):
            remove_folder(folder)
        object_format = "sha256" if len(commit) == 64 else "sha1"
        repository = Repository(fresh, config=CONFIG)
        try:
            # Readable by the slots' identities, whatever the worker's umask.
            shape = ("--bare", "--shared=0644", "--template=", f"--object-format={object_format}")
            repository.run("init", "--quiet", *shape, str(fresh), env=ENVIRONMENT)
            self._fetch_into(repository, commit)
        except GitError as error:
            remove_folder(fresh)
            raise self._cannot_be_fetched(commit, error) from error
        if self.path.exists():
            self.path.rename(stale)
        fresh.rename(self.path)
        remove_folder(stale)

    def _fetch_and_tidy(self, commit: str) -> None:
        self._fetch_into(self._repository, commit)
        self._tidy()

    def _tidy(self) -> None:
        """Pack what many small fetches have left, without dropping anything."""
        sample, packs = self.objects / SAMPLE, self.objects / "pack"
        loose = len(list(sample.iterdir())) if sample.is_dir() else 0
        if loose > MOST_IN_SAMPLE or len(list(packs.glob("*.pack"))) > MOST_PACKS:
            self._repository.run("repack", "--quiet", "--geometric=2", "-d", env=ENVIRONMENT)

    def _look_through(self, repository: Repository, commit: str) -> None:
        """Trees and blobs too: a transfer that was cut off, or a file that was lost, shows here."""
        repository.run("rev-list", "--objects", "--no-walk", "--quiet", commit, "--", env=ENVIRONMENT)

    def _cannot_be_fetched(self, commit: str, error: GitError) -> CheckoutError:
        return CheckoutError(f"{commit} cannot be fetched from {self.clone_url}: {error}; see `ciapp doctor`")

    def _fetch_into(self, repository: Repository, commit: str) -> None:
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"]
        if "://" not in self.clone_url and self.clone_url.startswith("/"):
            options.append(f"--upload-pack={UPLOAD_PACK}")
        limits: dict[str, Any] = {"env": ENVIRONMENT, "kill_after_timeout": FETCH_WITHIN_S}
        repository.run("fetch", "--prune", *options, "--", self.clone_url, *REFSPECS, **limits)
        if not repository.has_commit(commit):
            # Not below any ref: forced away before it could be pinned. Servers may still give it by its id.
            repository.run("fetch", *options, "--", self.clone_url, commit, **limits)
        self._look_through(repository, commit)
        repository.run("pack-refs", "--all", env=ENVIRONMENT)
