"""A shell for a person in a run's sandbox, at a terminal of its own.

In:  a suite, and the terminal that the person sits at.
Out: nothing but what the person did; all processes are gone.

The sandbox never gets hold of the person's terminal: what runs inside could type into it. The shell has a
pseudo-terminal, and every byte is carried over by us.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import struct
import sys
import termios
import tty
from collections.abc import Callable

from ciapp.testing.sandbox import SandboxedProcess
from ciapp.testing.suite import Suite

LOOK_EVERY_S = 0.2
READ_SIZE = 64 * 1024
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
BASH = ("--noprofile", "--norc", "-i")  # nothing but what tests would have
#: Makes the pseudo-terminal, handed over as a descriptor, the one that its first program sits at.
SIT_DOWN = """
import fcntl, os, sys, termios
terminal = int(sys.argv[1])
try:
    os.setsid()
except PermissionError:
    pass  # it is the first of its session
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.closerange(3, 1024)
os.execv(sys.argv[2], sys.argv[2:])
"""


def run_shell(suite: Suite, *, should_stop: Callable[[], bool]) -> str:
    """Let the person at stdin work in the sandbox until the shell ends; the limit that ended it, else empty.

    To be called with a terminal as stdin. Raises SandboxError when no shell can be started.
    """
    controller, terminal = os.openpty()
    try:
        _copy_size(sys.stdin.fileno(), controller)
        try:
            process = _start(suite, terminal)
        finally:
            os.close(terminal)
        try:
            return _carry(process, controller, should_stop)
        finally:
            process.kill()
    finally:
        os.close(controller)


def _start(suite: Suite, terminal: int) -> SandboxedProcess:
    plan = suite.plan
    bash = shutil.which("bash", path=PROGRAMS)
    shell = (bash, *BASH) if bash else ("/bin/sh", "-i")
    own = {
        "PYTHONHASHSEED": str(plan.hash_seed),
        "TERM": os.environ.get("TERM", "dumb"),
        "PS1": r"ciapp \w\$ ",
    }
    return suite.sandbox.start(
        [str(plan.python), "-I", "-c", SIT_DOWN, str(terminal), *shell],
        environment=plan.environment | own,
        stdout=terminal,
        stderr=terminal,
        pass_fds=(terminal,),
        readable=plan.readable,
    )


def _carry(process: SandboxedProcess, controller: int, should_stop: Callable[[], bool]) -> str:
    """Carry bytes both ways until the shell has ended."""
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(keyboard)
    on_resize = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(keyboard, controller))
    listened = [keyboard, controller]
    try:
        tty.setraw(keyboard)
        while True:
            ready = select.select(listened, [], [], LOOK_EVERY_S)[0]
            if controller in ready:
                try:
                    shown = os.read(controller, READ_SIZE)
                except OSError:  # nobody holds the terminal any more
                    return ""
                _write_all(screen, shown)
            elif process.poll() is not None or should_stop():
                return ""
            if keyboard in ready:
                typed = os.read(keyboard, READ_SIZE)
                if typed:
                    _write_all(controller, typed)
                else:
                    listened.remove(keyboard)  # hung up
                    _write_all(controller, b"\x04")
            if not ready and (sentence := process.breach()):
                return sentence
    finally:
        signal.signal(signal.SIGWINCH, on_resize)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _copy_size(source: int, target: int) -> None:
    """Tell a terminal how large the other one is."""
    try:
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
    except OSError:
        return  # it has no size
