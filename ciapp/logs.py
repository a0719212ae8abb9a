"""Log lines: an event, and its fields as name=value; and how often one says what goes on for long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
SAY_EVERY_S = 60.0  #: of what goes on


class FieldFormatter(logging.Formatter):
    """One line per event, in UTC: time, level, event, then the fields that `extra` gave to one of ours."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        if not record.name.startswith("ciapp"):
            return super().formatMessage(record)
        fields = [f"{name}={value}" for name, value in vars(record).items() if name not in STANDARD]
        return " ".join([super().formatMessage(record), *fields])


def set_up_logging(level: int = logging.INFO) -> None:
    """Send ciapp's events to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter())
    logger = logging.getLogger("ciapp")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False


class Absence:
    """A service that is away: said at once, then once in a while, and again when it is back."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._service = ""  #: the one that is away
        self._say_again_at_s = 0.0

    def note(self, service: str, error: Exception) -> None:
        """It is away; `error` says why, and what is to be done."""
        if service != self._service or self._clock() >= self._say_again_at_s:
            again = "still " if service == self._service else ""
            self._logger.warning(f"{service} {again}away", extra={"error": str(error)})
            self._service = service
            self._say_again_at_s = self._clock() + SAY_EVERY_S

    def end(self) -> None:
        """Whatever was away is back."""
        if self._service:
            self._logger.info(f"{self._service} back")
            self._service = ""
