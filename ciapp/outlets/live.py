"""Tests on a terminal while they run: letters, or a line each, as unittest prints them.

In:  results and failed fixtures, as they are settled.
Out: text to be written at once. Nothing of a commit acts in it, as in `ciapp.outlets.text`.
"""

from __future__ import annotations

from ciapp.outlets.terminal import Color, cut_to_width, escape_line, paint
from ciapp.outlets.text import LETTERS, NAME_WIDTH, RULE_WIDTH, Event, events_of
from ciapp.results.report import FixtureResult, Outcome, TestResult

WORDS = {
    Outcome.PASSED: "ok",
    Outcome.FAILED: "FAIL",
    Outcome.ERRORED: "ERROR",
    Outcome.SKIPPED: "skipped",
    Outcome.EXPECTED_FAILURE: "expected failure",
    Outcome.UNEXPECTED_SUCCESS: "unexpected success",
    Outcome.CRASHED: "CRASHED",
    Outcome.TIMED_OUT: "TIMED OUT",
    Outcome.LOAD_ERROR: "ERROR",
    Outcome.NOT_RUN: "not run",
}
COLORS = {
    Outcome.PASSED: Color.GREEN,
    Outcome.SKIPPED: Color.YELLOW,
    Outcome.EXPECTED_FAILURE: Color.YELLOW,
    Outcome.NOT_RUN: Color.YELLOW,
}


class Live:
    """What to write of one run, piece by piece."""

    def __init__(self, *, verbose: bool = False, color: bool = False) -> None:
        self._verbose = verbose
        self._color = color
        self._column = 0
        self._known = self._done = 0

    def count(self, known: int, done: int) -> None:
        """How many tests there are, and how many of them are done; shown at the ends of lines of letters."""
        self._known, self._done = known, done

    def show(self, found: TestResult | FixtureResult) -> str:
        """A test or a fixture that was settled."""
        return "".join(map(self._line if self._verbose else self._letter, events_of(found)))

    def end(self) -> str:
        """Whatever ends the last line."""
        begun, self._column = self._column, 0
        return "\n" if begun else ""

    def _letter(self, event: Event) -> str:
        self._column = (self._column + 1) % RULE_WIDTH
        end = "" if self._column else f"  {self._done}/{self._known}\n"
        return self._painted(LETTERS[event.outcome], event.outcome) + end

    def _line(self, event: Event) -> str:
        said = event.message and f": {event.message}"
        word = self._painted(WORDS[event.outcome], event.outcome)
        return f"{cut_to_width(escape_line(event.name), NAME_WIDTH)} ... {word}{escape_line(said)}\n"

    def _painted(self, text: str, outcome: Outcome) -> str:
        return paint(text, COLORS.get(outcome, Color.RED)) if self._color and text != "." else text
