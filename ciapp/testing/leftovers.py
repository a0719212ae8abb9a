"""What a fetch that was killed, or broke off, has left in a mirror; git removes it only when it prunes.

Only for a mirror whose lock is held: then nobody is at work in it.
"""

from __future__ import annotations

from pathlib import Path

from ciapp.git import Repository
from ciapp.testing.folders import remove_folder

#: In the folder of packs. git gives a .keep to a pack that it has just received, until its refs are written.
UNFINISHED = ("tmp_*", ".tmp-*", "*.keep")


def clear_leftovers(mirror: Path) -> None:
    """Remove them. Raises CheckoutError for a folder that cannot be removed."""
    for folder in places_aside(mirror):
        remove_folder(folder)
    if not mirror.is_dir():
        return
    Repository(mirror).clear_locks(held_s=0.0)
    # Unlike a lock, git never asks whose it is: no ref could be packed any more.
    (mirror / "packed-refs.new").unlink(missing_ok=True)
    objects = mirror / "objects"
    packs = objects / "pack"
    unfinished = [path for pattern in UNFINISHED for path in packs.glob(pattern)]
    for pack in packs.glob("*.pack"):
        if not pack.with_suffix(".idx").exists():  # written last: git does not know of the pack
            unfinished += [pack, pack.with_suffix(".rev")]
    for path in (*unfinished, *objects.glob("??/tmp_obj_*")):
        path.unlink(missing_ok=True)
    for folder in objects.glob("tmp_objdir-*"):
        remove_folder(folder)


def places_aside(mirror: Path) -> tuple[Path, Path]:
    """Where a mirror is built before it takes its place, and where the one before it goes."""
    return mirror.with_suffix(".new"), mirror.with_suffix(".old")
