"""What has happened to a test between its start and its stop.

In:  one trace for each call that a TestResult receives for it.
Out: the gravest of them, with all messages and tracebacks.
"""

from __future__ import annotations

import sys

__unittest = True

PASSED, EXPECTED, SKIPPED, UNEXPECTED, FAILED, ERRORED, UNLOADED = range(1, 8)  #: traces, the gravest last
OUTCOMES = (
    "",
    "passed",
    "expected-failure",
    "skipped",
    "unexpected-success",
    "failed",
    "errored",
    "load-error",
)


class Running:
    """A test between start and stop."""

    __slots__ = ("context", "index", "messages", "more", "started", "subtests", "trace", "tracebacks")

    def __init__(self, index: int) -> None:
        self.index = index
        self.context = sys.exc_info()[1]  #: what was being handled when the test started
        self.trace = 0
        self.messages: dict[int, str] = {}
        self.tracebacks: list[str] = []
        self.subtests = 0
        self.more = 0
        self.started = 0.0

    def leave(self, trace: int, message: str = "", traceback: str = "") -> None:
        """Note one thing that happened to the test."""
        self.messages.setdefault(trace, message)
        if traceback:
            self.tracebacks.append(traceback)
        if trace > self.trace:
            self.trace = trace
