"""The dispatcher as a process: one per host, until it is told to stop."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

from ciapp.connection import end_if_refused, reach_broker
from ciapp.errors import CiError, SettingsError, UsageError
from ciapp.intake.dispatcher import Dispatcher
from ciapp.intake.presence import Presence
from ciapp.results.database import Database
from ciapp.settings import Settings
from ciapp.tasks import send_runs

logger = logging.getLogger(__name__)
LOCK_WITHIN_S = 20.0  #: how long one that runs for good is waited for: it may be about to end
ONCE, FOR_GOOD = "once\n", "for good\n"  #: what the lock's holder is, as the lock says


def serve(settings: Settings, database: Database, *, once: bool) -> None:
    """Run the dispatcher of this host. Raises UsageError when another one runs.

    At the start, a broker that refuses us is a BrokerRefusedError; one that is away is waited for.
    With `once`, take in what is there, send what is due, and return; a dispatcher that runs does the same.
    """
    lock = _take_lock(settings.state_path, once)
    if lock is None:
        return
    presence = Presence()
    dispatcher = Dispatcher(settings, database, send_runs, reach_broker=lambda: reach_broker(settings))
    try:
        if once:
            dispatcher.announce(presence)
            dispatcher.step()
        else:
            end_if_refused(settings)
            _serve_until_told(dispatcher, presence)
    finally:
        presence.close()
        # A push that still saw our mark has left its record to us by now.
        with suppress(CiError):
            dispatcher.step()
        lock.close()


def _serve_until_told(dispatcher: Dispatcher, presence: Presence) -> None:
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()
        presence.interrupt()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    logger.info("dispatcher started")
    dispatcher.run(presence, stopped.is_set)
    logger.info("dispatcher stopped")


def _take_lock(state: Path, once: bool) -> IO[str] | None:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o711)
        lock = (state / "dispatcher.lock").open("a")
    except OSError as error:
        raise SettingsError(f"{state} cannot be used: {error.strerror}; set state_dir elsewhere") from error
    deadline = time.monotonic() + LOCK_WITHIN_S
    is_said = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            is_late = time.monotonic() >= deadline
            # One that a hook has started will end, however long a database that is locked keeps it.
            if not is_late or (not once and Path(lock.name).read_text() == ONCE):
                if is_late and not is_said:
                    logger.warning("waiting for a dispatcher that a hook has started")
                is_said = is_late
                time.sleep(0.1)
                continue
            lock.close()
            if once:
                return None
            raise UsageError(f"a dispatcher runs already in {state}; stop it first") from error
        with suppress(OSError):  # a full disk: then others wait for us as for one that runs for good
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), (ONCE if once else FOR_GOOD).encode("ascii"))
        return lock
