"""Environments of this host, kept by what they were made from.

In:  a key, and a function that makes the environment which belongs to it.
Out: a folder that stays as it is for as long as it is held.

An environment is made aside and then renamed into place, so a folder that is there is whole. Each key has a
lock: its maker holds it exclusively, so that one slot makes what others wait for, and its users share it, so
that nothing in use is removed. The kernel lets go of locks when a process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ciapp.errors import InstallError, StaleAttemptError
from ciapp.testing.folders import remove_folder

MIB = 1 << 20
WAIT_S = 0.05
ABOUT = "about.json"
NOTES_KEPT_S = 30 * 86400.0
MADE = "made"  #: of a folder in which an environment is made, what is kept in the end


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an environment."""

    note: str = ""  #: how it was made, as the end of a sentence for the report; empty: nothing to tell
    size_bytes: int = 0  #: files that it shares with the downloads count too


class Held(msgspec.Struct, frozen=True):
    """An environment that nobody removes until it is released."""

    path: Path
    about: About
    lock: int

    def release(self) -> None:
        """Let it be removed when others are used more."""
        os.close(self.lock)


Make = Callable[[Path], About]


class Environments:
    """The environments of this host, and what they are made from."""

    def __init__(self, state_path: Path, *, limit_mib: int) -> None:
        state = state_path.resolve()
        self.path = state / "environments"
        self.workshop = state / "install"  #: where they are made
        self.downloads = self.workshop / "cache"  #: uv's cache
        self._building = self.workshop / "building"
        self._limit_bytes = limit_mib * MIB
        try:
            for folder, mode in ((self.path, 0o755), (self.workshop, 0o711), (self._building, 0o711)):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(mode)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def obtain(self, key: str, make: Make, *, should_stop: Callable[[], bool]) -> Held:
        """The environment of a key; made if it is not there, while other slots that want it wait.

        `make` gets an empty folder and fills its folder `made`; what it raises is passed on. Raises
        StaleAttemptError when `should_stop` says yes while another slot makes it.
        """
        try:
            while True:
                lock = self._wait_for_lock(key, fcntl.LOCK_SH, should_stop)
                if held := self._find(key, lock):
                    return held
                os.close(lock)
                lock = self._wait_for_lock(key, fcntl.LOCK_EX, should_stop)
                try:
                    if self._find(key, lock) is None:
                        self._make(key, make)
                finally:
                    os.close(lock)
                self._trim(spare=key)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def note(self, key: str) -> str:
        """What was noted of a key; empty when nothing was."""
        try:
            return self._note_file(key).read_text("utf-8")
        except OSError:
            return ""

    def leave_note(self, key: str, text: str) -> None:
        """Note something of a key, for as long as the environments are kept."""
        file = self._note_file(key)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(text, "utf-8")
        fresh.replace(file)

    @contextlib.contextmanager
    def using_downloads(self) -> Iterator[None]:
        """Keep the downloads from being removed."""
        lock = os.open(self.workshop / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield
        finally:
            os.close(lock)

    def _find(self, key: str, lock: int) -> Held | None:
        path = self.path / key
        try:
            about = msgspec.json.decode((path / ABOUT).read_bytes(), type=About)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        os.utime(lock)
        return Held(path, about, lock)

    def _make(self, key: str, make: Make) -> None:
        folder, path = self._building / key, self.path / key
        # A maker that was killed leaves its folder behind; so does a host that loses power.
        remove_folder(folder)
        remove_folder(path)
        (folder / MADE).mkdir(parents=True)
        folder.chmod(0o755)
        try:
            about = make(folder)
            made = folder / MADE
            # What was built from source may have left anything here, and under any name.
            remove_folder(made / ABOUT)
            about = msgspec.structs.replace(about, size_bytes=folder_bytes(made))
            (made / ABOUT).write_bytes(msgspec.json.encode(about))
            made.chmod(0o755)
            made.rename(path)
        finally:
            remove_folder(folder)

    def _wait_for_lock(self, key: str, kind: int, should_stop: Callable[[], bool]) -> int:
        while (lock := self._try_lock(key, kind)) is None:
            if should_stop():
                raise StaleAttemptError("the run was stopped while another slot made its environment")
            time.sleep(WAIT_S)
        return lock

    def _try_lock(self, key: str, kind: int) -> int | None:
        file = self.path / f"{key}.lock"
        while True:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), file.stat()):
                    return lock
            except BlockingIOError:
                os.close(lock)
                return None
            except FileNotFoundError:
                pass
            os.close(lock)  # it was removed with its environment meanwhile: that lock is nobody's

    def _trim(self, *, spare: str) -> None:
        """Remove what was used least recently, until everything together keeps to the limit."""
        self._remove_leftovers()
        sizes = self._sizes()
        downloads = folder_bytes(self.downloads)
        if sum(sizes.values()) + downloads > self._limit_bytes and downloads > self._limit_bytes // 2:
            downloads -= self._remove_downloads()
        total = sum(sizes.values()) + downloads
        for key in sorted(sizes, key=self._used_at):
            if total <= self._limit_bytes:
                return
            if key != spare and self._remove(key):
                total -= sizes[key]

    def _sizes(self) -> dict[str, int]:
        found = {}
        for file in self.path.glob(f"*/{ABOUT}"):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found[file.parent.name] = msgspec.json.decode(file.read_bytes(), type=About).size_bytes
        return found

    def _used_at(self, key: str) -> float:
        try:
            return (self.path / f"{key}.lock").stat().st_mtime
        except OSError:
            return 0.0

    def _remove(self, key: str) -> bool:
        """Remove an environment, unless it is in use."""
        lock = self._try_lock(key, fcntl.LOCK_EX)
        if lock is None:
            return False
        try:
            gone = self._building / f"{key}.old"
            remove_folder(gone)
            (self.path / key).rename(gone)
            (self.path / f"{key}.lock").unlink()
            remove_folder(gone)
        finally:
            os.close(lock)
        return True

    def _remove_leftovers(self) -> None:
        """Remove what makers left that were killed, and old notes."""
        for folder in self._building.iterdir():
            key = folder.name.removesuffix(".old")
            lock = self._try_lock(key, fcntl.LOCK_EX)
            if lock is not None:
                remove_folder(folder)
                if not (self.path / key).exists():
                    (self.path / f"{key}.lock").unlink()
                os.close(lock)
        for file in self.path.glob("*.note"):
            if time.time() - file.stat().st_mtime > NOTES_KEPT_S:
                file.unlink(missing_ok=True)

    def _remove_downloads(self) -> int:
        """Remove the downloads, unless somebody installs; how many bytes that frees."""
        lock = os.open(self.workshop / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        else:
            freed = folder_bytes(self.downloads)
            remove_folder(self.downloads)
            return freed
        finally:
            os.close(lock)

    def _note_file(self, key: str) -> Path:
        return self.path / f"{key}.note"


def folder_bytes(folder: Path) -> int:
    """What the files below a folder take on disk."""
    used = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                used += os.lstat(f"{parent}/{name}").st_blocks * 512
    return used


def _unusable(path: Path, error: OSError) -> InstallError:
    return InstallError(f"{path} cannot be used: {error.strerror}; check state_dir and its disk")
