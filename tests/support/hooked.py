"""A bare repository with ciapp's hook, whose dispatcher command is a small script that notes how it ran."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ciapp.intake.hook import Installation, install_hook
from ciapp.intake.hook_files import HOOK
from ciapp.intake.presence import Presence
from ciapp.intake.spool import SpoolRecord, read_records
from tests.support.git_repositories import ENVIRONMENT, WorkTree, new_bare_repository
from tests.support.services import need

DEADLINE_S = 20.0
NULL = "0" * 40

#: Notes arguments, environment, session and the targets of its descriptors; runs until `release` is there.
COMMAND = """#!/bin/sh
here=${0%/*}
read -r stat </proc/$$/stat
set -- "$@" "session $(echo "${stat##*) }" | cut -d ' ' -f 4) process $$"
{
    printf 'word %s\\n' "$@"
    env
    for descriptor in /proc/$$/fd/[012]; do readlink "$descriptor"; done
} >"$here/.run.$$"
mv "$here/.run.$$" "$here/run.$$"
# The folder goes with its test: who waits for longer has been forgotten.
until [ -e "$here/release" ] || [ ! -d "$here" ]; do sleep 0.02; done
mv "$here/run.$$" "$here/done.$$"
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; a test that waits in vain fails by saying for what."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain waited for: {what}")
        time.sleep(0.01)


class HookedTest(unittest.TestCase):
    """A bare repository, a work tree that pushes to it, and the hook in between once `install` is called."""

    def setUp(self) -> None:
        self.bare = new_bare_repository(self)
        self.tree = WorkTree(self, self.bare)
        self.folder = self.bare.parent
        self.command = self.folder / "bin" / "ciapp command"
        self.command.parent.mkdir()
        self.command.write_text(COMMAND)
        self.command.chmod(0o755)
        # A command that a hook started outlives its push; it must end before the folder goes.
        self.addCleanup(lambda: wait_until(lambda: not self.runs(), "started commands to end"))
        self.addCleanup(self.release)

    def install(self, path: Path | None = None, *, name: str | None = None) -> Installation:
        return install_hook(
            path or self.bare,
            name=name,
            command=[str(self.command), "-m", "it's"],
            config=self.folder / "my ciapp.toml",
            state_dir=self.folder / "state",
        )

    def listen(self) -> Presence:
        """Be the dispatcher that lives, so that no push starts one."""
        presence = Presence()
        self.addCleanup(presence.close)
        self.assertTrue(presence.announce(self.bare))
        return presence

    def release(self) -> None:
        """Let started commands end."""
        (self.command.parent / "release").touch()

    def runs(self) -> list[str]:
        """The notes of commands that are running."""
        notes = []
        for note in self.command.parent.glob("run.*"):
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                notes.append(note.read_text())
        return notes

    def records(self) -> list[SpoolRecord]:
        return read_records(self.bare)

    def push(self, *words: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """Push; returns the lines that the hook showed the pusher, without git's `remote:`."""
        shown = self.tree.push(*words, environ=environ)
        lines = [line.removeprefix("remote: ").rstrip() for line in shown.split("\n") if "remote:" in line]
        return lines

    def run_hook(
        self,
        lines: str = f"{NULL} {'ab' * 20} refs/heads/main\n",
        *,
        shell: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> str:
        """Run the hook as git would; returns what it printed. Fails when its status is not 0."""
        done = subprocess.run(
            [*shell, str(self.bare / "hooks" / HOOK)],
            cwd=self.bare,
            env={**ENVIRONMENT, "GIT_DIR": ".", **(environ or {})},
            input=lines.encode("utf-8", "surrogateescape"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_S,
            user=user,
        )
        self.assertEqual(0, done.returncode)
        return done.stdout.decode("utf-8", "replace")


def busybox_path(folder: Path) -> str:
    """A PATH on which nothing but busybox stands. Raises SkipTest without busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        need("busybox", "it is not installed")
    folder.mkdir()
    for applet in ("sh", "cat", "dd", "mv", "rm", "date", "env", "sed", "setsid"):
        (folder / applet).symlink_to(busybox)
    return os.fspath(folder)
