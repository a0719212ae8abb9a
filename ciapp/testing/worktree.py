"""A work tree that is moved from commit to commit, touching only files that differ.

In:  a slot, a folder of it, and a mirror to borrow objects from.
Out: in the folder, exactly the files of the commit; nothing of what stood there before.

git itself runs in the sandbox, under the identity that the tests have: so the files belong to that identity
without a change of owner (which would make git's index worthless), and a commit that is made to harm git
harms nobody. Its git directory with the index stands outside of the folder; tests never see it. A file that
tests changed is noticed by its inode and ctime, which nobody can set back.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

import msgspec

from ciapp.errors import CheckoutError, ProjectError
from ciapp.settings import Limits
from ciapp.testing.bubblewrap import Bubblewrap
from ciapp.testing.folders import remove_folder, sweep_folder
from ciapp.testing.launch import Shown
from ciapp.testing.mirror import Mirror, is_object_trouble
from ciapp.testing.mover import LOOK_EVERY_S, MOVE, MOVES_WITHIN_S, move, telling_line
from ciapp.testing.own_git import git_files, give_away, lay_out_git_folder
from ciapp.testing.sandbox import (
    CHECKOUT,
    Sandbox,
    SandboxedProcess,
    SandboxSetting,
    find_level,
    identity_in,
    open_sandbox,
)
from ciapp.testing.slot import Slot

GIT_DIR = Path("/git")
OBJECTS = Path("/objects")
OURS = ("No space left", "Disk quota", "Input/output error", "Read-only file system", "Out of memory")

#: Nothing that the commit or the machine brings along may run; what the tree holds is what is laid out.
CONFIG = """\
[core]
\thooksPath = /dev/null
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tfsmonitor = false
\tautocrlf = false
[protocol]
\tallow = never
[gc]
\tauto = 0
"""
ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "LC_ALL": "C",
}


class View(msgspec.Struct, frozen=True):
    """What a sandbox shows."""

    shown: tuple[Shown, ...]


class WorkTree:
    """A folder of a slot, and the git directory that goes with it."""

    def __init__(
        self, slot: Slot, path: Path, git_dir: Path, mirror: Mirror, limits: Limits, setting: SandboxSetting
    ) -> None:
        self.path = path
        self.mirror = mirror
        self._slot = slot
        self._git_dir = git_dir
        self._limits = limits
        self._setting = setting
        self._identity = identity_in(find_level(setting), slot)

    @property
    def index(self) -> Path:
        """git's index: what it knows of the files it laid out."""
        return self._git_dir / "index"

    def move_to(self, commit: str, *, keeps_git: bool = False) -> None:
        """Make the folder hold this commit and nothing else, but for its `.git` if that is to be kept.

        Raises ProjectError for a commit that cannot be laid out, CheckoutError for trouble of this host's.
        """
        if self._is_there() and self._is_swept(keeps_git) and not self._try(commit):
            return
        self._start_anew(commit)
        said = self._try(commit)
        if is_object_trouble(said):
            self.mirror.rebuild(commit)
            said = self._try(commit)
        if not said:
            return
        if is_object_trouble(said) or any(trouble in said for trouble in OURS):
            raise CheckoutError(f"{commit} cannot be laid out in {self.path}: {said}; see `ciapp doctor`")
        raise ProjectError(f"the commit cannot be checked out: {said}")

    def git(self, *words: str) -> str:
        """What git prints, run on the folder in the sandbox."""
        status, printed, said = self._run("git", *words)
        if status:
            raise ProjectError(f"git {words[0]} fails on the commit: {said}")
        return printed.decode("utf-8", "surrogateescape")

    def below(self, path: str, mirror: Mirror) -> WorkTree:
        """The work tree of a submodule in a folder of this one."""
        key = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
        git_dir = self._git_dir.with_suffix(".modules") / f"{key}.git"
        return WorkTree(self._slot, self.path / path, git_dir, mirror, self._limits, self._setting)

    def _is_there(self) -> bool:
        for folder in (self.path, self._git_dir):
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != self._identity.uid:
                return False
        self.path.chmod(0o755)  # tests may have closed it, and programs are to start in it
        return True

    def _is_swept(self, keeps_git: bool) -> bool:
        try:
            sweep_folder(self.path, keeps_git=keeps_git)
        except (OSError, RecursionError):
            return False
        return True

    def _start_anew(self, commit: str) -> None:
        """An empty folder and an empty index."""
        remove_folder(self._git_dir)
        remove_folder(self.path)
        try:
            self.path.mkdir(parents=True)
            self._git_dir.mkdir(parents=True)
            give_away(self.path, self._identity)
            lay_out_git_folder(self._git_dir, git_files(commit, CONFIG), self._identity)
        except OSError as error:
            raise CheckoutError(f"{self.path} cannot be made: {error.strerror}; check state_dir") from error

    def _try(self, commit: str) -> str:
        """Move; what went wrong, empty when nothing did."""
        sandbox, environment = self._open_sandbox()
        if isinstance(sandbox, Bubblewrap):  # out of reach of the tests, so it may outlive the move
            return move(
                self._slot,
                self.path,
                commit,
                folders=(self.path, self._git_dir, self.mirror.objects),
                limits=self._limits,
                sandbox=sandbox,
                environment=environment,
            )
        status, _, said = self._run("sh", "-c", MOVE, "sh", commit)
        return (said or f"git ended with status {status}") if status else ""

    def _open_sandbox(self) -> tuple[Sandbox, dict[str, str]]:
        """A sandbox for git, and git's variables in it."""
        view = View(
            (
                Shown(self.path, CHECKOUT, writable=True),
                Shown(self._git_dir, GIT_DIR, writable=True),
                Shown(self.mirror.objects, OBJECTS),
            )
        )
        sandbox = open_sandbox(self._slot, view, self._limits, setting=self._setting)
        return sandbox, {
            **ENVIRONMENT,
            "GIT_DIR": str(sandbox.inside(self._git_dir)),
            "GIT_WORK_TREE": str(sandbox.checkout),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(sandbox.inside(self.mirror.objects)),
        }

    def _run(self, *command: str) -> tuple[int, bytes, str]:
        """Exit status, output, and the last line of complaint of a program in the folder."""
        sandbox, environment = self._open_sandbox()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            process = sandbox.start(
                command, environment=environment, stdout=output.fileno(), stderr=complaints.fileno()
            )
            try:
                breach = _watch(process)
            finally:
                process.kill()
            status = process.poll()
            output.seek(0)
            complaints.seek(0)
            said = breach or telling_line(complaints.read().decode("utf-8", "replace"))
            return status if status is not None and not breach else 1, output.read(), said


def _watch(process: SandboxedProcess) -> str:
    """Wait for the end; the limit that was broken before, empty when none was."""
    deadline = time.monotonic() + MOVES_WITHIN_S
    while process.wait(LOOK_EVERY_S) is None:
        breach = process.breach()
        if breach:
            return breach
        if time.monotonic() > deadline:
            return f"git needs more than {MOVES_WITHIN_S:.0f} s"
    return ""
