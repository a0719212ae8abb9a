"""What an identity leaves on this host outside of its folders: files where everybody may write, and System V
IPC. (Root only, for an identity that nobody else has and that has no process any more.)

Files are known by their owner, so a link is taken away as such, and what it leads to stays. Folders are not
entered to look for more: whoever may write into another user's folder there is let in by that user.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from ciapp.testing.folders import remove_folder

#: Of System V's memory and POSIX's message queues the latter stand in a folder, where that is mounted.
OPEN_TO_ALL = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/dev/mqueue")
IPC_RMID = 0


def remove_leavings(uid: int) -> None:
    """Remove what belongs to an identity. Raises CheckoutError when something cannot be removed."""
    for entry in list_leavings(uid):
        _remove(entry)
    libc = ctypes.CDLL(None)
    for number in _ipc("shm", uid):
        libc.shmctl(number, IPC_RMID, None)
    for number in _ipc("sem", uid):
        libc.semctl(number, 0, IPC_RMID)


def list_leavings(uid: int) -> Iterator[os.DirEntry[str]]:
    """The files and folders of an identity where everybody may write."""
    for folder in OPEN_TO_ALL:
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if _owner(entry) == uid:
                    yield entry


def _owner(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except FileNotFoundError:
        return None


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        remove_folder(Path(entry.path))
    else:
        Path(entry.path).unlink(missing_ok=True)


def _ipc(kind: str, uid: int) -> Iterator[int]:
    """The numbers of an identity's memory segments ("shm") or sets of semaphores ("sem")."""
    try:
        titles, *lines = Path("/proc/sysvipc", kind).read_text("ascii").splitlines()
    except FileNotFoundError:
        return  # a kernel without them
    for line in lines:
        facts = dict(zip(titles.split(), map(int, line.split()), strict=False))
        if uid in (facts["uid"], facts["cuid"]):
            yield facts[f"{kind}id"]
