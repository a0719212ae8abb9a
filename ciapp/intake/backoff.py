"""When to try a broker again that did not answer: ever more rarely, and soon where somebody asks.

An attempt that was asked for comes beside the others and puts none of them off: where pushes are frequent, a
broker that is back after a short absence would else be noticed after a long one's pause.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  #: doubled after each failure
ASKED_PAUSE_S = 1.0  #: between two attempts, however often somebody asks


class Backoff:
    """The pauses between attempts since the last one that succeeded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = 0.0  #: 0: the last attempt has succeeded, or there was none
        self._due_at_s = self._tried_at_s = clock()
        self._is_asked = False

    def ask(self) -> None:
        """Somebody would have something of an attempt."""
        self._is_asked = True

    @property
    def is_due(self) -> bool:
        """Whether now is the time for an attempt; always, after one that succeeded."""
        now_s = self._clock()
        if not self._pause_s or now_s >= self._due_at_s:
            return True
        return self._is_asked and now_s >= self._tried_at_s + ASKED_PAUSE_S

    def note_success(self) -> None:
        """An attempt has succeeded: there is nothing to wait for."""
        self._pause_s, self._is_asked = 0.0, False

    def note_failure(self) -> None:
        """An attempt has failed, just now."""
        self._tried_at_s, self._is_asked = self._clock(), False
        if not self._pause_s or self._tried_at_s >= self._due_at_s:
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._due_at_s = self._tried_at_s + self._pause_s
