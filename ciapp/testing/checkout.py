"""A commit laid out in a slot, ready for its tests.

In:  a slot, a mirror that has the commit.
Out: a `Checkout`: its folder on the host, and what a sandbox shows of it.

Tests may ask git about their checkout (which version is this, is it clean), and may do to its `.git` what
they like. So each run gets a `.git` of its own (`own_git`): HEAD at the commit, its tags, a clean index, and
the mirror's objects to borrow from. The one that git really works with is out of their sight (`worktree`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ciapp.errors import CheckoutError
from ciapp.settings import Limits
from ciapp.testing.launch import Shown
from ciapp.testing.mirror import Mirror
from ciapp.testing.own_git import borrowing_files, own_git
from ciapp.testing.sandbox import CHECKOUT, SandboxSetting, find_level, identity_in
from ciapp.testing.slot import Slot
from ciapp.testing.submodules import check_out_submodules
from ciapp.testing.worktree import OBJECTS, WorkTree

COMMIT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """A commit's files in a slot."""

    commit: str
    path: Path  #: on the host
    shown: tuple[Shown, ...]  #: what a sandbox shows of it


def check_out(
    slot: Slot,
    mirror: Mirror,
    commit: str,
    *,
    setting: SandboxSetting = "auto",
    limits: Limits | None = None,
) -> Checkout:
    """Lay out a commit that the mirror has; nothing that stood in the slot's checkout before is left.

    Raises ProjectError for a commit that cannot be laid out (a path that git refuses, a submodule that
    cannot be had), CheckoutError for trouble of this host's.
    """
    if not COMMIT_ID.fullmatch(commit):
        raise CheckoutError(f"{commit!r} is no commit id; give all of its 40 or 64 digits")
    path = slot.path / "checkouts" / mirror.name
    git_dirs = slot.path / "git"
    tree = WorkTree(slot, path, git_dirs / f"{mirror.name}.git", mirror, limits or Limits(), setting)
    level = find_level(setting)
    own = own_git(slot, path / ".git", identity_in(level, slot))
    with _open_to_slot(git_dirs):
        tree.move_to(commit, keeps_git=own.is_as_left())
        check_out_submodules(tree)
        objects = OBJECTS if level.name == "bubblewrap" else mirror.objects
        files = borrowing_files(commit, objects, mirror.tag_refs())
        own.lay_out({**files, "index": tree.index.read_bytes()})
    shown = (Shown(path, CHECKOUT, writable=True), Shown(mirror.objects, OBJECTS))
    return Checkout(commit=commit, path=path, shown=shown)


@contextlib.contextmanager
def _open_to_slot(git_dirs: Path) -> Iterator[None]:
    """Let the slot's identity reach its git directories, for as long as no test runs."""
    try:
        git_dirs.mkdir(parents=True, exist_ok=True)
        git_dirs.chmod(0o711)
        yield
        git_dirs.chmod(0o700)
    except OSError as error:
        raise CheckoutError(f"{git_dirs} cannot be used: {error.strerror}; check state_dir") from error
