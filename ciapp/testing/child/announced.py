"""What is announced before it runs, for it may never come back: a fixture, a suite of the tests' own class.

In:  who runs, and the result that tells of it.
Out: calls of the result: announce, withdraw, and what came out of it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any

__unittest = True


class Fixture:
    """A class or module fixture while it runs; or the run() of a suite of the tests' own class."""

    def __init__(
        self, result: Any, phase: str, scope: str, speaks: bool, holds: bool, suite: Any = None
    ) -> None:
        self.phase = phase
        self.scope = scope
        self.holds = holds  #: whether what it raised goes no further
        self.failed = False
        self.interrupted = False  #: whether it raised what unittest does not catch
        self.suite = suite  #: that runs; None for a fixture
        self.serial = -1  #: once it is announced
        self.around: Fixture | None = None  #: that runs on when this one is over
        self._result = result
        self._speaks = speaks  #: whether there is anything of the tests' own to run

    def __enter__(self) -> "Fixture":
        if self._speaks:
            self._result.announce(self)
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> bool:
        if kind is not None and self.suite is not None:
            self._result.suite_broken(self, value)
        elif kind is not None:
            self.interrupted = True
            self._result.fixture_failed(self.phase, self.scope, (kind, value, traceback))
        if self._speaks:
            self._result.withdraw(self)
        return self.holds
