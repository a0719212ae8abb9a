"""Pythons that come to a host, or leave it, while its worker runs.

In:  the worker's settings, and how it takes up and drops the queue of an environment.
Out: the environments whose runs it takes now.

What the host has is looked at by name and date alone; programs are started when that changed. An installation
takes its time and looks complete before it is, so after each change they are asked for some minutes, less and
less often: to start each of a host's Pythons takes half a second of its processors.
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
        self,
        settings: Settings,
        take_up: Callable[[str], None],
        drop: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._take_up = take_up
        self._drop = drop
        self._stamp = stamp_candidates(settings)
        self._look_at_s = self._clock() + LOOK_EVERY_S
        self._ask_at_s, self._pause_s = self._look_at_s, 2 * LOOK_EVERY_S
        self._missed: set[str] = set()  #: that the last look did not find
        self._known = dict(find_interpreters(settings).interpreters)

    def environments(self) -> tuple[str, ...]:
        """All that the worker takes; looks for others when it is time."""
        if self._clock() >= self._look_at_s:
            self._look()
            self._look_at_s = self._clock() + LOOK_EVERY_S
        return (DEFAULT, *map(environment_of, self._known))

    def _look(self) -> None:
        stamp, now_s = stamp_candidates(self._settings), self._clock()
        if stamp != self._stamp:
            self._stamp = stamp
            self._ask_at_s, self._pause_s = now_s, LOOK_EVERY_S
        if now_s < self._ask_at_s or self._pause_s > ASK_FOR_S:
            return
        self._ask_at_s, self._pause_s = now_s + self._pause_s, 2 * self._pause_s
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
