"""The fixtures of an attempt that failed, or were skipped to nobody's loss.

In:  what children said of them.
Out: as many as a report takes.
"""

from __future__ import annotations

from ciapp.results.report import FixtureResult
from ciapp.testing.budget import Budget, clean
from ciapp.testing.output import Scope

MOST_FAILED = 10_000  #: of a run
MOST_SKIPPED = 20


class Fixtures:
    """The account of one attempt."""

    def __init__(self, budget: Budget) -> None:
        self.failed: list[tuple[FixtureResult, Scope | None]] = []
        self.skipped: dict[str, str] = {}  #: those that no test was skipped for, and their reasons
        self._budget = budget

    def fail(
        self, phase: str, scope: str, message: str, traceback: str, place: Scope | None = None
    ) -> FixtureResult | None:
        """Add one; `place` is where its output stands. None when there are too many."""
        if len(self.failed) >= MOST_FAILED:
            return None
        message, traceback = self._budget.texts(message, traceback)
        found = FixtureResult(
            phase=clean(phase)[:100], scope=clean(scope)[:1000], message=message, traceback=traceback
        )
        self.failed.append((found, place))
        return found

    def skip(self, phase: str, scope: str, message: str) -> None:
        """Note one that no test was skipped for."""
        if len(self.skipped) < MOST_SKIPPED:
            self.skipped[f"{clean(phase)[:100]} ({clean(scope)[:200]})"] = clean(message)[:200]
