"""Folders with content that is not ours: looked for, and removed whatever they hold."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ciapp.errors import CheckoutError

REMOVE_WITHIN_S = 600.0


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


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=REMOVE_WITHIN_S, check=False
    )
