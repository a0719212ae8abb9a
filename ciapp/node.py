"""A worker's node name, which no other may have: the ledger has one row for it, and its runs are found by it.

In:  the name, the state folder, the ledger.
Out: the name, ours until this process ends, however it ends; a UsageError while another worker has it.

On this host a lock tells at once. Elsewhere the ledger does: whoever is there beats, so a row is watched for
longer than a beat. But not one that a worker of this state folder left when it was killed: it would keep its
successor waiting.
"""

from __future__ import annotations

import fcntl
import os
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from ciapp.errors import CheckoutError, LedgerError, UsageError
from ciapp.results.database import Database
from ciapp.results.workers import BEAT_EVERY_S, Worker, list_workers

LOCK_WITHIN_S = 2.0  #: one that was killed takes a moment to be gone
BEATS_WITHIN_S = 2 * BEAT_EVERY_S
LOOK_EVERY_S = 0.2


class NodeName:
    """A name that is taken."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        # A pool process may outlive a worker that was killed; the name must not.
        os.register_at_fork(after_in_child=lambda: os.close(lock))

    def remember(self, started_at: datetime) -> None:
        """Leave word of who has the name now, for a successor."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(started_at).encode(), 0)


def take_name(name: str, state_path: Path, database: Database) -> NodeName:
    """Take a node name. Raises UsageError when another worker has it."""
    lock = _open_lock(state_path / "workers", name)
    until_s = time.monotonic() + LOCK_WITHIN_S
    while not _is_locked(lock):
        if time.monotonic() > until_s:
            os.close(lock)
            raise _taken(name, "on this host")
        time.sleep(LOOK_EVERY_S)
    predecessor = os.pread(lock, 100, 0).decode("ascii", "replace")
    first = known = _find(database, name)
    until_s = time.monotonic() + BEATS_WITHIN_S
    while known is not None and str(known.started_at) != predecessor and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
        known = _find(database, name)
        if first is not None and known is not None and known.seen_at != first.seen_at:
            os.close(lock)
            raise _taken(name, f"on {known.host}")
    return NodeName(lock)


def _find(database: Database, name: str) -> Worker | None:
    """The worker of that name, as far as the ledger tells; None also when it does not answer."""
    try:
        return next((worker for worker in list_workers(database) if worker.name == name), None)
    except LedgerError:
        return None


def _open_lock(folder: Path, name: str) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        file = folder / f"{quote(name, safe='@')}.lock"
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CheckoutError(f"{folder} cannot be used: {error.strerror}; check state_dir") from error


def _is_locked(lock: int) -> bool:
    """Whether we have the lock now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _taken(name: str, where: str) -> UsageError:
    return UsageError(
        f"worker {name} runs already {where}; stop it, or give this one another name: --hostname=NAME@%h"
    )
