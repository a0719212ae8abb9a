"""Pythons that come to a host, or leave it, while its worker runs.

In:  the worker's settings, and how it takes up and drops the queue of an environment.
Out: the environments whose runs it takes now.

What the host has is looked at by name and date alone; programs are started when that changed. An installation
takes its time and looks complete before it is, so after each change they are asked for some minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ciapp.results.matrix import DEFAULT, environment_of
from ciapp.settings import Settings
from ciapp.testing.interpreters import find_interpreters, look_again, stamp_candidates

logger = logging.getLogger(__name__)
LOOK_EVERY_S = 10.0
ASK_FOR_S = 600.0  #: after a change, and after the start


class Lookout:
    """What one worker knows of its host's Pythons."""

    def __init__(
        self, settings: Settings, take_up: Callable[[str], None], drop: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._take_up = take_up
        self._drop = drop
        self._stamp = stamp_candidates(settings)
        self._ask_until_s = time.monotonic() + ASK_FOR_S
        self._look_at_s = time.monotonic() + LOOK_EVERY_S
        self._missed: set[str] = set()  #: that the last look did not find
        self._known = dict(find_interpreters(settings).interpreters)

    def environments(self) -> tuple[str, ...]:
        """All that the worker takes; looks for others when it is time."""
        if time.monotonic() >= self._look_at_s:
            self._look()
            self._look_at_s = time.monotonic() + LOOK_EVERY_S
        return (DEFAULT, *map(environment_of, self._known))

    def _look(self) -> None:
        stamp = stamp_candidates(self._settings)
        if stamp != self._stamp:
            self._stamp = stamp
            self._ask_until_s = time.monotonic() + ASK_FOR_S
        elif time.monotonic() > self._ask_until_s:
            return
        found = dict(look_again(self._settings).interpreters)
        missed = self._known.keys() - found.keys()
        # One that did not answer once, on a busy host, has not left.
        stayed = {version: self._known[version] for version in missed - self._missed}
        self._missed = set(missed)
        for version in found.keys() - self._known.keys():
            logger.info("python found", extra={"version": version, "python": str(found[version].python)})
            self._take_up(environment_of(version))
        for version in missed - stayed.keys():
            logger.warning("python gone", extra={"version": version})
            self._drop(environment_of(version))
        self._known = found | stayed
