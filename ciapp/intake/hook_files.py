"""The files of the hook, put where a push may read them at any moment.

In:  folders and contents.
Out: files and links that are the old or the new ones, never half of either; what they may be used by.
"""

from __future__ import annotations

import os
from pathlib import Path

from ciapp.intake.hook_settings import OTHER_HOOKS

HOOK = "post-receive"
KEPT_HOOK = "post-receive.before-ciapp"


def link_all(source: Path, target: Path) -> None:
    """Links in `target` for all that is in `source`, but for post-receive.

    And for hooks it does not have: to git a link to nothing is no hook, and it becomes one when the hook is
    added there.
    """
    present = {entry.name for entry in source.iterdir()} if source.is_dir() else set()
    for name in sorted((present | OTHER_HOOKS) - {HOOK, KEPT_HOOK}):
        link(source / name, target / name)


def link(source: Path, name: Path) -> None:
    """A symbolic link of that name, whatever link had it."""
    if name.is_symlink():
        if name.readlink() == source:
            return
        name.unlink()
    name.symlink_to(source)


def share_like_objects(git_dir: Path, folder: Path) -> None:
    """Let those who may push write here: they are those who may write objects."""
    objects, facts = (git_dir / "objects").stat(), folder.stat()
    if (objects.st_uid, objects.st_gid) != (facts.st_uid, facts.st_gid):
        owner = objects.st_uid if os.geteuid() == 0 else -1
        os.chown(folder, owner, objects.st_gid)
    folder.chmod(objects.st_mode & 0o7777)


def write_at_once(path: Path, content: bytes, mode: int) -> None:
    """Write a file beside its place, then put it there: a push may read it at any moment."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.chmod(mode)
    part.rename(path)


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two names are one file's, or one link's."""
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except OSError:
        return False
