"""The sandbox's strong level: bubblewrap, with namespaces of the run's own.

In:  what to show of the host beside its programs, and the identity to run under.
Out: started programs, whose exit status, signals and end go through the kernel's process numbers.

There are two forms, by who the worker is. An ordinary user's bubblewrap makes a user namespace. Root's must
not: a user namespace maps the outer root into the sandbox, which may then change whatever root owns outside.
Root's bubblewrap sets up the mounts itself and hands over to setpriv, which becomes an identity of the
slot's own before any code of the commit runs; the only root process inside is bubblewrap's reaper.

bubblewrap waits at a gate (`--block-fd`) until its limits are set from here: no program has to be started
for that. It dies with the thread that started it (PDEATHSIG), and with it the pid namespace: so `start` must
be called from a thread that lives as long as the program, best the main thread. bubblewrap asks for that bit
by bit: a worker that is killed meanwhile leaves a part of it waiting for ever, at the gate or for a part that
is dead, with no code of the commit running. All parts carry the name of the slot's holder, by which the
slot's sweeper finds and ends them. An ordinary user's reaper is the equal of the tests, which may trace it,
untie it and rename it: so the sweeper is told its number as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from ciapp.errors import SandboxError
from ciapp.settings import Limits
from ciapp.testing.launch import (
    FIRST_VICTIM,
    MIB,
    Shown,
    check_readable,
    kernel_limits,
    killed_from_outside,
    memory_file,
    sandbox_environment,
    set_limits,
    spawn,
    wait_for,
)
from ciapp.testing.mounts import binds, etc_mounts, folders, resolver, system_mounts
from ciapp.testing.processes import list_children, pid_inside, send_signal
from ciapp.testing.slot import Identity
from ciapp.testing.stragglers import Stragglers
from ciapp.testing.syscalls import refuse_calls
from ciapp.testing.usage import Usage

HOME = "/home/ciapp"
MEMORY_FOLDERS = {"/tmp": 2, "/dev/shm": 4, HOME: 4}  #: folder → which part of the run's memory it may take
DIES_WITHIN_S = 10.0
FIRST_PROGRAM = 2  #: the program's number inside: bubblewrap's reaper is 1
SETPRIV, ENV = "/usr/bin/setpriv", "/usr/bin/env"  #: not looked for: PATH may be of the commit's choice
HARMLESS = re.compile("PATH|VIRTUAL_ENV|(PYTHON|GIT_)[A-Z_]*")  #: to setpriv and the loader
SIGNALS_FROM = 128  #: exit statuses of bubblewrap above this tell of a signal
NO_SETUP = "bubblewrap could not set up a sandbox; its reason stands in the program's error output"


class Bubblewrap:
    """Where the code of one run may do what it likes."""

    level = "bubblewrap"

    def __init__(
        self,
        identity: Identity,
        etc: Path,
        limits: Limits,
        shown: Sequence[Shown],
        *,
        checkout: Path,
        network: bool = False,
        announce: Callable[[int], None] = lambda pid: None,
    ) -> None:
        """`etc` is what programs see as /etc; `checkout` the folder that they start in, as seen inside.

        `announce` is told of each process that everything inside ends with, before anything runs there.
        """
        self._announce = announce
        self.checkout = checkout
        self._identity = identity
        self._limits = limits
        self._shown = shown
        self._network = network
        self._etc = etc

    def inside(self, path: Path) -> Path:
        """Where a program in the sandbox finds a path of the host that it is shown."""
        for one in self._shown:
            if path.is_relative_to(one.host):
                return one.inside / path.relative_to(one.host)
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
        stdin: int = subprocess.DEVNULL,
    ) -> BubblewrapProcess:
        """Start a program; see `ciapp.testing.sandbox.Sandbox`."""
        check_readable(command[0], readable)
        status, status_end = os.pipe()
        gate = _open_gate()
        refused = memory_file(refuse_calls())
        words = [*self._arguments(readable), "--json-status-fd", str(status_end), "--block-fd", str(gate)]
        start = self._start_of(command, words, environment)
        words += ["--seccomp", str(refused)]
        # Handed over in a file, so that the paths of the host do not stand in /proc/1/cmdline.
        arguments = memory_file(b"".join(os.fsencode(word) + b"\0" for word in words))
        try:
            process = spawn(
                [self._identity.name, "--args", str(arguments), "--", *start],
                program=bubblewrap_program(),
                environment={},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(*pass_fds, status_end, gate, arguments, refused),
            )
        except BaseException:
            os.close(gate)
            os.close(status)
            raise
        finally:
            for descriptor in (status_end, arguments, refused):
                os.close(descriptor)
        usage = Usage(self._limits, [one.host for one in self._shown if one.writable])
        try:
            return BubblewrapProcess(process, status, gate, self._limits, usage, self._announce)
        finally:
            os.close(gate)

    def _start_of(
        self, command: Sequence[str], words: list[str], environment: Mapping[str, str]
    ) -> Sequence[str]:
        """What bubblewrap starts, to become the program under its identity and with its variables.

        A variable such as LD_PRELOAD is code of the commit's choice in every program that has it. So
        bubblewrap itself has none, and setpriv, which is still root, has harmless ones.
        """
        is_root = self._identity.is_own
        own = sandbox_environment(HOME, "/tmp", {})
        early = {
            name: value for name, value in environment.items() if not is_root or HARMLESS.fullmatch(name)
        }
        for name, value in (own | early).items():
            words += ["--setenv", name, value]
        late = [f"{name}={value}" for name, value in environment.items() if name not in early]
        if late and "=" in command[0]:  # env would take it for a variable
            command = ["/bin/sh", "-c", 'exec "$@"', "sh", *command]
        return [*(_drop_to(self._identity) if is_root else []), *([ENV, *late] if late else []), *command]

    def _arguments(self, readable: Sequence[Path]) -> list[str]:
        own = self._identity.is_own
        words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        words += [] if self._network else ["--unshare-net"]
        words += ["--hostname", "ciapp", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        if own:
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                words += ["--cap-add", capability]
        else:
            words += ["--unshare-user"]
        words += system_mounts()
        words += ["--ro-bind", str(self._etc), "/etc", *etc_mounts(), "--proc", "/proc", "--dev", "/dev"]
        words += [*folders("/run"), *folders("/var"), "--symlink", "/tmp", "/var/tmp", *folders("/home")]
        for folder, part in MEMORY_FOLDERS.items():
            # Root's mounts belong to root, so the slot's identity needs the right to write there.
            mode = "1777" if folder != HOME else "0777" if own else "0700"
            size = self._limits.memory_mib * MIB // part
            words += ["--perms", mode, "--size", str(size), "--tmpfs", folder]
        words += binds([*self._shown, *resolver(self._network), *(Shown(path, path) for path in readable)])
        # Where the worker is an ordinary user, the root of the sandbox belongs to it: memory without a limit.
        words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(self.checkout)]
        return words


class BubblewrapProcess:
    """A program started in bubblewrap, with every process that descends from it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        status: int,
        gate: int,
        limits: Limits,
        usage: Usage,
        announce: Callable[[int], None],
    ) -> None:
        """`status` tells what became of the program; writing to `gate` lets it start."""
        self._process = process
        self._status = status
        self._usage = usage
        self._program = 0
        self._stragglers: Stragglers | None = None
        self._exit: int | None = None
        self._said = b""
        wanted = kernel_limits(limits) | {resource.RLIMIT_NPROC: (limits.processes, limits.processes)}
        try:
            self._reaper = self._meet_reaper()
            self._reaper_handle = os.pidfd_open(self._reaper)
            announce(self._reaper)
            set_limits(self._reaper, wanted)
            Path(f"/proc/{self._reaper}/oom_score_adj").write_text(str(FIRST_VICTIM), "ascii")
            os.write(gate, b"1")
        except (OSError, SandboxError) as error:
            process.kill()
            process.wait()
            os.close(status)
            raise SandboxError(NO_SETUP) from error

    def poll(self) -> int | None:
        """Exit status; see `ciapp.testing.sandbox.SandboxedProcess`."""
        if self._stragglers:
            self._stragglers.look()
        if self._exit is None and self._process.poll() is not None:
            self._exit = self._read_exit(self._process.returncode)
        return self._exit

    def wait(self, timeout_s: float) -> int | None:
        """As `poll`, once the program has ended or the time is over."""
        until_s = time.monotonic() + timeout_s
        while self.poll() is None and (left_s := until_s - time.monotonic()) > 0:
            if self._stragglers and not self._stragglers.is_over:
                self._stragglers.wait(left_s)
            else:
                wait_for(self._process, left_s)
        return self._exit

    def watch_stragglers(self) -> None:
        """Give what the program leaves running a moment, and count it."""
        if not self._stragglers and self._find_program():
            with contextlib.suppress(ProcessLookupError):
                self._stragglers = Stragglers(self._process.pid, self._reaper, self._program)

    @property
    def outlived(self) -> int:
        """Processes that outlived the program and its moment."""
        return self._stragglers.left if self._stragglers else 0

    def signal(self, signum: int) -> None:
        """Signal the program itself."""
        if self._process.poll() is None and self._find_program():
            send_signal(self._program, signum)

    def breach(self) -> str:
        """Which limit the processes have broken together."""
        if self._process.poll() is not None:
            return ""
        return self._usage.breach(self._reaper, MEMORY_FOLDERS)

    def kill(self) -> None:
        """End the tree: the kernel ends a pid namespace with its first process."""
        if self._reaper_handle < 0:
            return
        self._usage.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._reaper_handle, signal.SIGKILL)
        if self._stragglers:
            self._stragglers.end()
        # A reaper's end is reported after the end of everything else in its namespace.
        waiting = select.poll()
        waiting.register(self._reaper_handle, select.POLLIN)
        if not waiting.poll(DIES_WITHIN_S * 1000):
            raise SandboxError(
                f"process {self._reaper} of a sandbox does not die; see it with ps, and restart the host"
            )
        self._process.wait()
        with contextlib.suppress(SandboxError):
            self.poll()
        os.close(self._reaper_handle)
        os.close(self._status)
        self._reaper_handle = -1

    def _meet_reaper(self) -> int:
        """The number of the first process inside, as the host counts."""
        while not (found := re.search(rb'"child-pid": (\d+)[, ]', self._said)):
            part = os.read(self._status, 4096)
            if not part:
                raise SandboxError(NO_SETUP)
            self._said += part
        return int(found[1])

    def _find_program(self) -> bool:
        if not self._program:
            inside = (pid for pid in list_children(self._reaper) if pid_inside(pid) == FIRST_PROGRAM)
            self._program = next(inside, 0)
        return bool(self._program)

    def _read_exit(self, returncode: int) -> int:
        """bubblewrap tells of signal N as exit status 128 + N, and of its own failure by telling nothing.

        Nothing inside can reach bubblewrap itself: a signal that ends it says nothing of the program.
        """
        while part := os.read(self._status, 4096):
            self._said += part
        found = re.search(rb'"exit-code": (\d+)', self._said)
        if not found and returncode < 0:
            raise SandboxError(f"a sandbox {killed_from_outside(returncode)}")
        code = int(found[1]) if found else returncode
        if not found and code <= SIGNALS_FROM:
            raise SandboxError(NO_SETUP)
        return SIGNALS_FROM - code if code > SIGNALS_FROM else code


@cache
def bubblewrap_program() -> str:
    """Where bubblewrap is. Raises SandboxError when it is not installed."""
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bubblewrap is not installed; install the package `bubblewrap`")
    return program


def _open_gate() -> int:
    """A pipe in one descriptor: whoever waits at it holds its other end too, and never sees an end of file.

    bubblewrap would take that, which is what the worker's death is, for leave to start the program.
    """
    reading, writing = os.pipe()
    try:
        return os.open(f"/proc/self/fd/{reading}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(reading)
        os.close(writing)


def _drop_to(identity: Identity) -> list[str]:
    numbers = ["--reuid", str(identity.uid), "--regid", str(identity.gid), "--clear-groups"]
    return [SETPRIV, *numbers, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
