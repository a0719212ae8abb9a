"""Folders with content that is not ours: looked for, and removed whatever they hold."""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import stat
import subprocess
from pathlib import Path

from ciapp.errors import CheckoutError

REMOVE_WITHIN_S = 600.0
DEEPEST = 200  #: folders within folders that are swept; each takes a descriptor
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_MODE = 0o755
GET_FLAGS = 0x80086601  #: FS_IOC_GETFLAGS; some processors have another number, and then no answer
OWNERS_FLAGS = (
    0x6283C4FF  #: what `chattr` lets an owner set (FS_*_FL), rather than what the kernel sets itself
)


def remove_folder(path: Path) -> None:
    """Remove a folder and all it holds, closed folders included; nothing when it is not there.

    Raises CheckoutError when something cannot be removed.
    """
    if not path.is_symlink() and not path.exists():
        return
    try:
        shutil.rmtree(path)  # safe against links as well, and no program to start
        return
    except (OSError, RecursionError):
        pass  # closed, or too deep
    # rm and chmod walk by descriptors: neither follows a link, and both go deeper than a path may be long and
    # than Python may recurse.
    done = _run("rm", "-rf", str(path))
    if done.returncode:
        # An owner who is not root has no way into a folder that was closed.
        _run("chmod", "-R", "u+rwx", str(path))
        done = _run("rm", "-rf", str(path))
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"status {done.returncode}"]
        raise CheckoutError(f"{path} cannot be removed: {said[-1]}; remove it by hand")


def holds_folder(root: Path, name: str) -> bool:
    """Whether there is a folder of that name below `root`; a link that leads out of `root` is none."""
    try:
        return (root / name).is_dir() and (root / name).resolve().is_relative_to(root.resolve())
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return False


def sweep_folder(path: Path, *, keeps_git: bool = False) -> None:
    """Open every folder below to its owner, and remove what git never looks at: `.git`, pipes and sockets.

    The `.git` of `path` itself stays if it is to be kept. Nothing may be at work in the folder.

    Raises OSError or RecursionError for what cannot be swept, and for folders that have what git neither
    records nor removes: access lists, attributes of users, flags.
    """
    above = os.open(path.parent, OPEN_FOLDER)
    top = os.open(path, OPEN_FOLDER)
    try:
        _sweep(top, 0, _flags(above), keeps_git)
    finally:
        os.close(top)
        os.close(above)


def _sweep(folder: int, depth: int, inherited: int, keeps_git: bool = False) -> None:
    if depth > DEEPEST:
        raise RecursionError(f"folders are nested more than {DEEPEST} deep")
    if any(name.startswith(("user.", "system.")) for name in _attributes(folder)):
        raise FileExistsError("folders have attributes that were not theirs")
    if (
        _flags(folder) & ~inherited
    ):  # they pass on to whatever is made there: one of them slows down every write
        raise FileExistsError("folders have flags that were not theirs")
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if keeps_git and entry.name == ".git":
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name == ".git" and is_folder:
                shutil.rmtree(entry.name, dir_fd=folder)
            elif is_folder:
                below.append(entry.name)
            elif entry.name == ".git" or not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                os.unlink(entry.name, dir_fd=folder)
    for name in below:
        if stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode) != OPEN_MODE:
            os.chmod(name, OPEN_MODE, dir_fd=folder)
        descriptor = os.open(name, OPEN_FOLDER, dir_fd=folder)
        try:
            _sweep(descriptor, depth + 1, inherited)
        finally:
            os.close(descriptor)


def _attributes(folder: int) -> list[str]:
    try:
        return os.listxattr(folder)
    except OSError:
        return []  # a file system without attributes


def _flags(folder: int) -> int:
    flags = array.array("i", [0, 0])
    try:
        fcntl.ioctl(folder, GET_FLAGS, flags)
    except OSError:
        return 0  # a file system without flags
    return flags[0] & OWNERS_FLAGS


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=REMOVE_WITHIN_S, check=False
    )
