"""The text that one run may bring into its report: bounded in each piece and in all.

In:  what a child says of its tests.
Out: as much of it as a report can hold, fit for any database.
"""

from __future__ import annotations

TEXT_BUDGET = 64 * 1024 * 1024  #: characters of all ids, messages and tracebacks of a run
ROW_SIZE = 50  #: characters that a test or a subtest counts for even without a text
LEFT_OUT = "[left out: the tracebacks of this run are too long together]"
LONGEST_MESSAGE = 2_000


class Budget:
    """What is left of a run's room for text."""

    def __init__(self) -> None:
        self._used = 0

    def has_room(self, *texts: str) -> bool:
        """Take the room of one row with these texts; False, and nothing taken, when there is not enough."""
        length = ROW_SIZE + sum(map(len, texts))
        if self._used + length > TEXT_BUDGET:
            return False
        self._used += length
        return True

    def texts(self, message: str, traceback: str) -> tuple[str, str]:
        """Both, clean and cut."""
        message, traceback = clean(message)[:LONGEST_MESSAGE], clean(traceback)
        if not self.has_room(message, traceback):
            return message[:100], LEFT_OUT
        return message, traceback


def clean(text: str) -> str:
    """NUL written out: some databases refuse it in text."""
    return text.replace("\0", "\\x00")
