"""Ends what a worker that was killed has left behind under its slot's name.

Run as a script by a shell that has waited for the worker's end, alone with the standard library:

    python -I -S sweeper.py NAME [PID STARTED]

NAME is how the processes that serve the dead holder of the slot call themselves, and nobody else: so the
slot's next holder is left alone. Programs that choose their children's names themselves, as git does, have
it in their environment instead, which they hand on. A program that was just being started calls itself so
only a moment later, so the sweeper looks again until it has found nothing for a while. PID is a process that
may have been made to call itself something else; STARTED, when it started, in the kernel's ticks, tells it
from another of that number.
"""

# ruff: noqa: PTH123, PTH208
from __future__ import annotations

import os
import signal
import sys
import time

MARK = "SLOT_OF_CIAPP"  #: the variable; none of the settings' CIAPP_*
LOOK_EVERY_S = 0.02
QUIET_S = 0.5
GIVES_UP_AFTER_S = 30.0


def main() -> None:
    """Sweep until all is quiet."""
    name = os.fsencode(sys.argv[1]) + b"\0"
    end_told(*sys.argv[2:4])
    gives_up_at_s = time.monotonic() + GIVES_UP_AFTER_S
    quiet_at_s = time.monotonic() + QUIET_S
    while time.monotonic() < min(quiet_at_s, gives_up_at_s):
        if end_serving(name):
            quiet_at_s = time.monotonic() + QUIET_S
        time.sleep(LOOK_EVERY_S)


def end_told(pid: str = "", started: str = "") -> None:
    """End a process that is still the one it was."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[19] == started:
                os.kill(int(pid), signal.SIGKILL)
    except OSError:
        return


def end_serving(name: bytes) -> bool:
    """End the processes that are called so, or whose environment says so; whether there was one."""
    found = False
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if is_serving(pid, name):
                os.kill(int(pid), signal.SIGKILL)
                found = True
        except OSError:
            continue
    return found


def is_serving(pid: str, name: bytes) -> bool:
    """Whether a process's command line, or what its environment says of it, begins with a name."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        if file.read(len(name)) == name:
            return True
    with open(f"/proc/{pid}/environ", "rb") as file:
        return b"\0%b=%b" % (MARK.encode(), name) in b"\0" + file.read()


if __name__ == "__main__":
    main()
