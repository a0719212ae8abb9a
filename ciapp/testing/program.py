"""A program run in a sandbox to its end, with what it said.

In:  a sandbox, a command, and how long it may take.
Out: how it ended, and head and tail of its output; nothing of it is left over.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from ciapp.errors import StaleAttemptError
from ciapp.testing.output import HeadTail
from ciapp.testing.sandbox import Sandbox, SandboxedProcess

OUTPUT_HALF = 16 * 1024  #: bytes kept of the output's head, and of its tail
LOOK_EVERY_S = 0.2
READ_BYTES = 1 << 16
STOPPED = "the run was stopped while its environment was made"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a program."""

    status: int | None  #: -N when signal N ended it; None: it had to be ended
    output: str  #: both streams, head and tail
    breach: str = ""  #: why it was ended, as a sentence

    @property
    def is_good(self) -> bool:
        """Whether it did what it was started for."""
        return self.status == 0


def run_program(
    sandbox: Sandbox,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    readable: Sequence[Path],
    timeout_s: float,
    should_stop: Callable[[], bool],
) -> Ended:
    """Run a program. Raises StaleAttemptError when it was to stop, SandboxError when it cannot be started."""
    if should_stop():
        raise StaleAttemptError(STOPPED)
    kept = HeadTail(OUTPUT_HALF)
    end, child_end = os.pipe()
    try:
        try:
            process = sandbox.start(
                command, environment=environment, stdout=child_end, stderr=child_end, readable=readable
            )
        finally:
            os.close(child_end)
        try:
            status, breach = _watch(process, end, kept, timeout_s, should_stop)
        finally:
            process.kill()
        while select.select([end], [], [], 0)[0] and (part := os.read(end, READ_BYTES)):
            kept.add(part)
    finally:
        os.close(end)
    return Ended(status=status, output=kept.text(), breach=breach)


def _watch(
    process: SandboxedProcess, end: int, kept: HeadTail, timeout_s: float, should_stop: Callable[[], bool]
) -> tuple[int | None, str]:
    """Exit status; or None, and why the program has to be ended."""
    deadline_s = time.monotonic() + timeout_s
    is_open = True
    while True:
        if is_open:
            is_open = _take_output(end, kept)
        else:
            process.wait(LOOK_EVERY_S)
        status = process.poll()
        if status is not None:
            return status, ""
        if breach := process.breach():
            return None, breach
        if time.monotonic() > deadline_s:
            return None, f"it took longer than {timeout_s:g} s"
        if should_stop():
            raise StaleAttemptError(STOPPED)


def _take_output(end: int, kept: HeadTail) -> bool:
    """Keep what is said within a moment; False once nobody can say more."""
    until_s = time.monotonic() + LOOK_EVERY_S
    while (left_s := until_s - time.monotonic()) > 0:
        if not select.select([end], [], [], left_s)[0]:
            return True
        part = os.read(end, READ_BYTES)
        if not part:
            return False
        kept.add(part)
    return True
