"""The end of a child, in words.

In:  its exit status, and what faulthandler wrote.
Out: a sentence, and the stacks of the tests.
"""

from __future__ import annotations

import signal
from pathlib import Path

from ciapp.testing.child.channel import CHANNEL_LOST

CHILD = Path(__file__).parent / "child"
CHANNEL_CLOSED = "the process closed the channel on which it reports"


def without_our_frames(dump: str) -> str:
    """A stack dump, as far as it shows the tests."""
    return "".join(line for line in dump.splitlines(keepends=True) if f'File "{CHILD}/' not in line)


def explain_exit(status: int | None) -> str:
    """How a process came to its end, by its exit status; negative: the signal's number."""
    if status == CHANNEL_LOST:
        return CHANNEL_CLOSED
    if status is None or status >= 0:
        return f"the process exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the process was ended by {name}"
