"""The guard of the sandbox's weak level: a process that no descendant of the program escapes.

Run as a script by the worker's interpreter, alone with the standard library:

    python -I -S guard.py ORDERS

ORDERS is a descriptor that holds one object of JSON: {"command": [...], "environment": {...}, "cwd": ...,
"uid": ..., "limits": {...}, ...}. The variables are the program's alone: under them, this script would be
whatever the commit makes of it.

It makes itself the one that orphans fall to (subreaper), starts the program, and waits for the program's
end or the worker's. Either ends every descendant. The worker's end is the end of file on the lifeline, a
pipe whose other end only the worker holds; so it works whichever way and in whichever thread that dies.

On the status pipe it writes lines of JSON: {"pid": N} once the program has started, or {"error": "..."};
and last {"exit": N, "left": M} with N as subprocess counts (-9 is signal 9), and M the number of descendants
that outlived the program by more than a moment.
"""

# ruff: noqa: PTH123, PTH208
from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

if False:  # typing.TYPE_CHECKING, whose import would cost more than this whole script
    from collections.abc import Callable
    from typing import Any

PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
INSTRUCTION_SIZE = 8
GRACE_S = 1.0


def main() -> None:
    """Guard one program from its start to the end of its last descendant."""
    with open(int(sys.argv[1]), encoding="ascii") as file:
        order = json.load(file)
    lifeline, status = order["lifeline"], order["status"]
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup, wakeup_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    failure, failure_end = os.pipe2(os.O_CLOEXEC)
    program = os.fork()
    if program == 0:
        become_program(order, failure_end, prctl)
    os.close(failure_end)
    keep_only({lifeline, status, wakeup, wakeup_end, failure})
    said = os.read(failure, 4096).decode()
    tell(status, {"error": said} if said else {"pid": program})
    exit_status = wait(program, lifeline, wakeup)
    left = wait_for_others(lifeline)
    end_all()
    tell(status, {"exit": exit_status, "left": left})


def become_program(order: dict[str, Any], failure: int, prctl: Callable[..., int]) -> None:
    """In the fork: give up everything and turn into the program."""
    try:
        os.setsid()
        os.chdir(order["cwd"])
        for name, limit in order["limits"].items():
            resource.setrlimit(int(name), limit)
        with open("/proc/self/oom_score_adj", "w") as victim:
            victim.write(str(order["oom_score_adj"]))
        if order["uid"] is not None:
            os.setgroups([])
            os.setresgid(order["gid"], order["gid"], order["gid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        refuse_calls(bytes.fromhex(order["refused"]), prctl)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in (order["lifeline"], order["status"]):
            os.close(descriptor)
        os.execvpe(order["command"][0], order["command"], order["environment"])
    except OSError as error:
        os.write(failure, f"{error.filename or order['command'][0]}: {error.strerror}".encode())
    finally:
        os._exit(127)


def refuse_calls(instructions: bytes, prctl: Callable[..., int]) -> None:
    """Have the kernel filter the program's system calls; one that knows no filters lets all pass."""

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    program = Filter(len(instructions) // INSTRUCTION_SIZE, instructions)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)


def keep_only(kept: set[int]) -> None:
    """Close every descriptor that is the program's: its readers must see the end when the program ends."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                continue


def wait(program: int, lifeline: int, wakeup: int) -> int:
    """The program's exit status; -9 when the worker ended first. Orphans that end meanwhile are reaped."""
    waiting = select.poll()
    waiting.register(lifeline, select.POLLIN | select.POLLHUP)
    waiting.register(wakeup, select.POLLIN)
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return -signal.SIGKILL
            if pid == program:
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                break
        ready = dict(waiting.poll())
        if lifeline in ready:
            return -signal.SIGKILL
        os.read(wakeup, 4096)


def wait_for_others(lifeline: int) -> int:
    """Give descendants a moment to end by themselves; how many did not."""
    until = time.monotonic() + GRACE_S
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return 0
        if time.monotonic() > until or select.select([lifeline], [], [], 0.005)[0]:
            return len(descendants())


def end_all() -> None:
    """End every descendant, and return when the last one is reaped."""
    while True:
        tree = descendants()
        # Stopped first: among processes that go on forking, some are always born behind one's back.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in tree:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        time.sleep(0.001)


def descendants() -> list[int]:
    """Every process below this one."""
    found = []
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as listed:
                    children = [int(word) for word in listed.read().split()]
                found += children
                waiting += children
        except OSError:
            continue
    return found


def tell(status: int, fact: dict[str, Any]) -> None:
    """One line to the worker, if it still listens."""
    try:
        os.write(status, json.dumps(fact).encode() + b"\n")
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main()
