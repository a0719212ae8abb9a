"""What a bubblewrap sandbox sees of the host, in the words of bubblewrap's command line.

In:  what is shown, at which place inside.
Out: arguments, in the order in which bubblewrap is to follow them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath

from ciapp.testing.etc import shown_folders
from ciapp.testing.launch import Shown

ALREADY_SHOWN = ("/usr/", "/bin/", "/sbin/", "/lib", "/sys/devices/system/")
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


@cache
def system_mounts() -> tuple[str, ...]:
    """The host's programs and libraries, read-only, with the links that merged /usr systems have."""
    words: list[str] = []
    for folder in SYSTEM_FOLDERS:
        path = Path(folder)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), folder]
        elif path.is_dir():
            words += ["--ro-bind", folder, folder]
    processors = "/sys/devices/system"
    return (*words, *folders("/sys/devices"), "--ro-bind-try", processors, processors)


@cache
def etc_mounts() -> tuple[str, ...]:
    """The folders of the host's /etc that are shown as they are."""
    return tuple(word for path in shown_folders() for word in ("--ro-bind", str(path), str(path)))


def resolver(network: bool) -> list[Shown]:
    """Where names are looked up, for those who have the network."""
    file = Path("/etc/resolv.conf")
    return [Shown(file, file)] if network and file.exists() else []


def binds(shown: Iterable[Shown]) -> list[str]:
    """Each file or folder at its place, with the folders above it."""
    words: list[str] = []
    for one in shown:
        if not one.writable and one.host == one.inside and str(one.inside).startswith(ALREADY_SHOWN):
            continue
        words += folders(str(one.inside.parent))
        words += ["--bind" if one.writable else "--ro-bind", str(one.host), str(one.inside)]
    return words


def folders(path: str) -> list[str]:
    """Make a folder and those above it, open to all: bubblewrap would close them to all but their owner."""
    above = [str(parent) for parent in reversed(PurePosixPath(path).parents)][1:]
    words: list[str] = []
    for folder in [*above, path] if path != "/" else []:
        words += ["--perms", "0755", "--dir", folder]
    return words
