"""The sandbox's weak level, where bubblewrap does not work: limits, a session and a guard.

In:  what a program may write to, and the identity to run under.
Out: started programs whose descendants all end with them, or with the worker.

What this level does not do: hide files, processes and the network of the host. Under root the program
runs as the slot's own identity, if that can reach its files; else it is the worker's equal, and can end it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ciapp.errors import SandboxError
from ciapp.settings import Limits
from ciapp.testing import guard
from ciapp.testing.folders import remove_folder
from ciapp.testing.launch import (
    FIRST_VICTIM,
    Shown,
    check_readable,
    kernel_limits,
    killed_from_outside,
    memory_file,
    sandbox_environment,
    spawn,
    wait_for,
)
from ciapp.testing.leavings import remove_leavings
from ciapp.testing.processes import count_threads, kill_identity, send_signal
from ciapp.testing.slot import Identity
from ciapp.testing.syscalls import refuse_calls
from ciapp.testing.usage import Usage

STARTS_WITHIN_S = 30.0
DIES_WITHIN_S = 10.0


class LimitsOnly:
    """Where the code of one run is held to limits, and to little else."""

    level = "limits"

    def __init__(
        self, identity: Identity, scratch: Path, limits: Limits, shown: Sequence[Shown], *, checkout: Path
    ) -> None:
        """`scratch` is a folder for HOME and TMPDIR; `checkout` the one that programs start in."""
        self.checkout = checkout
        self._identity = identity
        self._scratch = scratch
        self._limits = limits
        self._writable = [one.host for one in shown if one.writable]

    def inside(self, path: Path) -> Path:
        """Where a program finds a path of the host: where it is."""
        return path

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        pass_fds: Sequence[int] = (),
        readable: Sequence[Path] = (),
    ) -> GuardedProcess:
        """Start a program; see `ciapp.testing.sandbox.Sandbox`."""
        check_readable(command[0], readable)
        if self._identity.is_own:
            remove_leavings(self._identity.uid)  # of a worker that was killed
        home, tmp = self._lay_out_scratch()
        lifeline_end, lifeline = os.pipe()
        status, status_end = os.pipe()
        order = self._order(command) | {
            "environment": sandbox_environment(str(home), str(tmp), environment),
            "lifeline": lifeline_end,
            "status": status_end,
        }
        owner = self._identity.uid if self._identity.is_own else None
        usage = Usage(self._limits, [*self._writable, self._scratch], owner=owner)
        orders = memory_file(json.dumps(order).encode("ascii"))
        try:
            # The guard may be root: no variable of the commit's choice, LD_PRELOAD for one, is to reach it.
            process = spawn(
                [sys.executable, "-I", "-S", guard.__file__, str(orders)],
                program=sys.executable,
                environment={},
                stdout=stdout,
                stderr=stderr,
                pass_fds=(*pass_fds, lifeline_end, status_end, orders),
            )
        except BaseException:
            os.close(lifeline)
            os.close(status)
            raise
        finally:
            os.close(orders)
            os.close(lifeline_end)
            os.close(status_end)
        return GuardedProcess(process, lifeline, status, usage, self._scratch, self._identity)

    def _lay_out_scratch(self) -> tuple[Path, Path]:
        remove_folder(self._scratch)
        home, tmp = self._scratch / "home", self._scratch / "tmp"
        for folder in (self._scratch, home, tmp):
            folder.mkdir(mode=0o700, parents=True)
            if self._identity.is_own:
                os.chown(folder, self._identity.uid, self._identity.gid)
        return home, tmp

    def _order(self, command: Sequence[str]) -> dict[str, Any]:
        own = self._identity.is_own
        processes = self._limits.processes
        if not own:
            # The kernel counts by user, and the user has a life beside this run.
            processes += count_threads(os.geteuid())
        wanted = kernel_limits(self._limits) | {resource.RLIMIT_NPROC: (processes, processes)}
        return {
            "command": list(command),
            "cwd": str(self.checkout),
            "uid": self._identity.uid if own else None,
            "gid": self._identity.gid if own else None,
            "limits": {name: _lowered(name, limit) for name, limit in wanted.items()},
            "oom_score_adj": FIRST_VICTIM,
            "refused": refuse_calls().hex(),
        }


class GuardedProcess:
    """A program under a guard, with every process that descends from it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        lifeline: int,
        status: int,
        usage: Usage,
        scratch: Path,
        identity: Identity,
    ) -> None:
        self._guard = process
        self._identity = identity
        self._lifeline = lifeline
        self._status = status
        self._usage = usage
        self._scratch = scratch
        self.outlived = 0
        self._exit: int | None = None
        self._said = b""
        started = self._read_fact("pid", "error", within_s=STARTS_WITHIN_S)
        if "pid" not in started:
            self.kill()
            reason = started.get("error", "its guard ended")
            raise SandboxError(f"the program cannot be started: {reason}; see `ciapp doctor`")
        self._program: int = started["pid"]

    def poll(self) -> int | None:
        """Exit status; see `ciapp.testing.sandbox.SandboxedProcess`."""
        if self._exit is None and self._guard.poll() is not None:
            last_word = self._read_fact("exit", within_s=0)
            if not last_word and self._identity.is_own and self._guard.returncode < 0:
                raise SandboxError(f"a guard {killed_from_outside(self._guard.returncode)}")
            # Without a last word the guard was killed, by a program that is its equal.
            self._exit = last_word.get("exit", self._guard.returncode)
            self.outlived = last_word.get("left", 0)
        return self._exit

    def wait(self, timeout_s: float) -> int | None:
        """As `poll`, once the program has ended or the time is over."""
        if self._exit is None:
            wait_for(self._guard, timeout_s)
        return self.poll()

    def watch_stragglers(self) -> None:
        """The guard always does."""

    def signal(self, signum: int) -> None:
        """Signal the program itself."""
        if self._guard.poll() is None:
            with contextlib.suppress(PermissionError):
                send_signal(self._program, signum)

    def breach(self) -> str:
        """Which limit the processes have broken together."""
        if self._guard.poll() is not None:
            return ""
        return self._usage.breach(self._guard.pid)

    def kill(self) -> None:
        """End the tree, by letting go of the guard's lifeline."""
        if self._lifeline < 0:
            return
        self._usage.close()
        os.close(self._lifeline)
        self._lifeline = -1
        try:
            self._guard.wait(DIES_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise SandboxError(
                f"guard {self._guard.pid} of a sandbox does not end its processes; see them with ps"
            ) from error
        try:
            self.poll()
        except SandboxError:
            # Nobody is left to end what it guarded.
            kill_identity(self._identity.uid)
        os.close(self._status)
        remove_folder(self._scratch)
        if self._identity.is_own:
            remove_leavings(self._identity.uid)

    def _read_fact(self, *names: str, within_s: float) -> dict[str, Any]:
        """The guard's line that tells one of these; empty when none comes."""
        deadline = time.monotonic() + within_s
        while True:
            for line in self._said.splitlines(keepends=True):
                if line.endswith(b"\n") and (fact := json.loads(line)).keys() & set(names):
                    return dict(fact)
            remaining_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._status], [], [], remaining_s)[0]:
                return {}
            part = os.read(self._status, 4096)
            if not part:
                return {}
            self._said += part


def _lowered(name: int, limit: tuple[int, int]) -> tuple[int, int]:
    """A limit that whoever is not root may set: none above the one in force."""
    _, highest = resource.getrlimit(name)
    if highest == resource.RLIM_INFINITY:
        return limit
    return min(limit[0], highest), min(limit[1], highest)
