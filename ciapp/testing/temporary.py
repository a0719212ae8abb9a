"""A worker's own folder for temporary files, which goes with it even after kill -9.

In:  the state folder.
Out: whatever Python's tempfile makes in this process and its forks stands in <state>/tmp/<owner>/.

Celery's pool keeps a folder of temporary files while it runs, and the look at bubblewrap makes one: workers
that were killed left them in /tmp for ever. Here the owner holds a flock while it or a fork of it lives; a
folder whose lock can be had is nobody's, and whoever looks next removes it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ciapp.errors import CheckoutError
from ciapp.testing.folders import remove_folder

LOCK = "lock"


def use_own_folder(state_path: Path) -> Path:
    """Give this process and its forks a folder for temporary files, and remove those of dead owners.

    Raises CheckoutError when the state folder cannot be used.
    """
    folders = state_path / "tmp"
    with _nobody_else(folders):
        _sweep(folders)
        try:
            own = Path(tempfile.mkdtemp(dir=folders, prefix=f"{os.getpid()}-"))
            # Never closed: the kernel lets go of it with the last process that has it.
            lock = os.open(own / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(folders, error) from error
        fcntl.flock(lock, fcntl.LOCK_EX)
    tempfile.tempdir = str(own)
    atexit.register(_remove_own, own, os.getpid())
    return own


def sweep_folders(state_path: Path) -> None:
    """Remove the folders of owners that are dead."""
    folders = state_path / "tmp"
    if folders.is_dir():
        with _nobody_else(folders):
            _sweep(folders)


def _sweep(folders: Path) -> None:
    for folder in folders.iterdir():
        if folder.name != LOCK and _is_nobodys(folder):
            with suppress(CheckoutError):  # what cannot be removed now is tried again
                remove_folder(folder)


def _is_nobodys(folder: Path) -> bool:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True  # its owner died before it had a lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


@contextmanager
def _nobody_else(folders: Path) -> Iterator[None]:
    """Be alone with the folders: one that is being made is not yet locked."""
    try:
        folders.mkdir(parents=True, exist_ok=True, mode=0o711)
        lock = os.open(folders / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(folders, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _unusable(folders: Path, error: OSError) -> CheckoutError:
    return CheckoutError(f"{folders} cannot be used: {error.strerror}; check state_dir")


def _remove_own(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(CheckoutError):
            remove_folder(folder)
