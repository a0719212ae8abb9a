"""Log lines: an event, and its fields as name=value."""

from __future__ import annotations

import logging
import time

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
