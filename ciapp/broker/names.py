"""What files in a broker's folder are called.

In:  names of queues and exchanges; a priority and the time for a message.
Out: file names that sort as messages are to go, and that any name can be read back from.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from functools import lru_cache
from urllib.parse import quote, unquote

MESSAGE = re.compile(r"\d-\d{20}-[0-9a-f]{12}\.\d+")
HIGHEST_PRIORITY = 9


def new_message(priority: int) -> str:
    """The name of a message that is put on a queue now; 9 is the highest priority."""
    urgency = HIGHEST_PRIORITY - min(max(priority, 0), HIGHEST_PRIORITY)
    return f"{urgency}-{_clock.now_ns():020d}-{secrets.token_hex(6)}.0"


def returned_message(name: str) -> str:
    """The name of a message that is given back once more; it keeps its place."""
    stem, _, times = name.rpartition(".")
    return f"{stem}.{int(times) + 1}"


def times_returned(name: str) -> int:
    """How often a message was given back."""
    return int(name.rpartition(".")[2])


def put_at_ns(name: str) -> int:
    """When a message was put on its queue."""
    return int(name.split("-")[1])


@lru_cache(maxsize=1024)
def quoted(name: str) -> str:
    """A name as one file name; never hidden, never `..`, without `!`."""
    text = quote(name, safe="@,")
    return "%2E" + text[1:] if text.startswith(".") else text


def unquoted(name: str) -> str:
    """The name that `quoted` was given."""
    return unquote(name)


class _Clock:
    """Time in nanoseconds that never repeats and never goes back within this process."""

    def __init__(self) -> None:
        self._last_ns = 0
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def now_ns(self) -> int:
        """Wall-clock time: what was put before a reboot is older than what was put after it."""
        with self._lock:
            self._last_ns = max(self._last_ns + 1, time.time_ns())
            return self._last_ns

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it when we were forked


_clock = _Clock()
