"""What both levels of the sandbox share when a program is started: limits of the kernel, and a clean start.

Nothing of ours may reach the program by inheritance: no variable, no descriptor, no ignored signal.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ciapp.errors import SandboxError
from ciapp.settings import Limits

MIB = 1 << 20
OPEN_FILES = 4096
QUEUES_BYTES = 800 * 1024  #: of a user's POSIX message queues, which are memory of no process
#: A byte that is sent without a copy counts for two pages of it, and keeps the page that it stands in, which
#: may be of 2 MiB.
LOCKED_BYTES = 64 * 1024
MAY_BE_IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGCHLD,
)
FIRST_VICTIM = 1000  #: oom_score_adj: when the host runs out of memory, tests go before anything else


class Shown(msgspec.Struct, frozen=True):
    """A file or folder of the host that programs in a sandbox see."""

    host: Path
    inside: Path
    writable: bool = False


def kernel_limits(limits: Limits) -> dict[int, tuple[int, int]]:
    """Resource → soft and hard limit, as setrlimit takes them; processes are left to the level."""
    # Not the address space: threads, mapped files and instrumented programs reserve far more of it than they
    # use. RLIMIT_DATA counts private writable memory alone.
    memory = limits.memory_mib * MIB
    cpu_s = max(1, int(limits.cpu_s))
    return {
        resource.RLIMIT_DATA: (memory, memory),
        resource.RLIMIT_FSIZE: (limits.file_mib * MIB, limits.file_mib * MIB),
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 5),  # a signal first, then the end
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (OPEN_FILES, OPEN_FILES),
        resource.RLIMIT_MEMLOCK: (LOCKED_BYTES, LOCKED_BYTES),
        resource.RLIMIT_MSGQUEUE: (QUEUES_BYTES, QUEUES_BYTES),
    }


def set_limits(pid: int, wanted: Mapping[int, tuple[int, int]]) -> None:
    """Lower the limits of a process; one that is lower already stays."""
    for name, (soft, hard) in wanted.items():
        _, highest = resource.prlimit(pid, name)
        if highest != resource.RLIM_INFINITY:
            soft, hard = min(soft, highest), min(hard, highest)
        resource.prlimit(pid, name, (soft, hard))


def sandbox_environment(home: str, tmp: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Every variable that a program in a sandbox has."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": tmp,
        "LANG": "C.UTF-8",
        "USER": "ciapp",
        "LOGNAME": "ciapp",
        "CI": "true",
        "CIAPP": "1",
        **extra,
    }


def memory_file(content: bytes) -> int:
    """A descriptor to read this from, for a program that is started with it."""
    descriptor = os.memfd_create("content")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def spawn(
    command: Sequence[str],
    *,
    program: str,
    environment: Mapping[str, str],
    stdout: int,
    stderr: int,
    pass_fds: Sequence[int],
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program of ours that starts the commit's. Raises SandboxError when it cannot be had."""
    try:
        with _default_signals():
            return subprocess.Popen(
                command,
                executable=program,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                env=environment,
                cwd="/",
                # Ctrl-C is for whoever started the tests, who then ends them; it must not hit them beside.
                start_new_session=True,
                umask=0o022,
            )
    except OSError as error:
        raise SandboxError(f"{program} cannot be started: {error.strerror}; see `ciapp doctor`") from error


def wait_for(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Return when a process has ended or the time is over; Popen.wait would look only now and then."""
    if process.returncode is not None:
        return
    handle = os.pidfd_open(process.pid)
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll(timeout_s * 1000)
    finally:
        os.close(handle)


def killed_from_outside(returncode: int) -> str:
    """What to say of a process of ours that a signal has ended, and that no test could have sent it to."""
    name = signal.Signals(-returncode).name
    return f"was ended by {name} from outside; see the host's log for who did that"


def check_readable(program: str, readable: Sequence[Path]) -> None:
    """Raise SandboxError when a program, or what it is to be shown, is not there."""
    for path in [*readable, *([Path(program)] if program.startswith("/") else [])]:
        if not os.path.lexists(path):
            raise SandboxError(f"{path} is needed in the sandbox and does not exist; restore it")


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """Let a program that is started now see no signal as ignored.

    Pools ignore SIGINT, nohup ignores SIGHUP, and programs inherit that; a handler they do not inherit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = [number for number in MAY_BE_IGNORED if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _take_no_notice)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _take_no_notice(*_: object) -> None:
    """A handler that does nothing."""
