"""The door to the child process: what a sandbox is to those who start programs in it.

In:  a command line, an environment, and descriptors to hand over.
Out: a process whose whole tree can be signalled, measured and ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class SandboxedProcess(Protocol):
    """A program started in a sandbox, with every process that descends from it."""

    def poll(self) -> int | None:
        """Exit status of the program: None while it runs, -N when signal N ended it. Never blocks."""

    def signal(self, signum: int) -> None:
        """Send a signal to the program itself (not to what it started); nothing when it is gone."""

    def breach(self) -> str:
        """Which limit the process tree has broken, as a sentence; empty while it keeps them all.

        To be asked a few times a second. The memory and disk that all processes use together have no
        kernel limit of their own here, so somebody has to look.
        """

    def kill(self) -> None:
        """End the whole process tree and return when no process of it is left."""


class Sandbox(Protocol):
    """Where the code of one run may do what it likes."""

    level: str  #: "bubblewrap" or "limits", as the report names it
    checkout: Path  #: the checkout's folder as a program inside sees it; its working directory

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        pass_fds: Sequence[int] = (),
        readable: Sequence[Path] = (),
    ) -> SandboxedProcess:
        """Start a program in the checkout, stdin at /dev/null.

        `environment` is added to the sandbox's own (HOME, TMPDIR, PATH, LANG); nothing else is inherited.
        `readable` are files and folders of the host that it may read, at the same paths.
        `pass_fds` keep their numbers. Raises SandboxError when it cannot be started for our reasons.
        """
