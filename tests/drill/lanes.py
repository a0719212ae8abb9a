"""When faults strike: a lane for processes, services and machine each, each fault after the one before.

In:  the plan's lanes, and what strikes.
Out: how often each kind has struck; a fault that could not strike is counted apart, with why.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import psycopg
from kombu.exceptions import OperationalError

from ciapp.errors import CiError
from tests.drill.plan import PlannedFault
from tests.drill.stage import Stage
from tests.drill.striking import COSTLY, NothingToStrikeError

MOST_TRIES = 2  #: of an unfinished run, for a fault that may cost it another one
HOLD_BACK_S = 40.0
#: Lanes that wait for a dispatcher of this version: it knows the commands, and loses no push that is damaged.
AFTER_MIGRATION = {"terminals", "damage"}
WORKS_WITHIN_S = 60.0
#: Another fault has taken away what a fault needs.
UNREACHABLE = (OSError, OperationalError, psycopg.OperationalError, CiError, NothingToStrikeError)


class Lanes:
    """The faults of a drill, going on beside its pushes."""

    def __init__(
        self,
        stage: Stage,
        lanes: Mapping[str, Sequence[PlannedFault]],
        kinds: Mapping[str, Mapping[str, Callable[[PlannedFault], None]]],
    ) -> None:
        self.struck: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self._stage = stage
        self._closing = threading.Event()
        self._planned = sum(map(len, lanes.values()))
        self._begun = dict.fromkeys(lanes, 0)
        self._threads = [
            threading.Thread(target=self._strike_all, args=(lane, faults, kinds[lane]), daemon=True)
            for lane, faults in lanes.items()
        ]

    def start(self) -> None:
        """Begin to strike."""
        for thread in self._threads:
            thread.start()

    def are_busy(self) -> bool:
        """Whether faults are still to come."""
        return any(thread.is_alive() for thread in self._threads)

    def share_begun(self) -> float:
        """How many of the faults have begun, of all that are planned; 1 when none is still to come."""
        return sum(self._begun.values()) / self._planned if self._planned and self.are_busy() else 1.0

    def close(self) -> None:
        """Strike no more."""
        self._closing.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _strike_all(
        self, lane: str, faults: Sequence[PlannedFault], strikes: Mapping[str, Callable[[PlannedFault], None]]
    ) -> None:
        self._await_first_run()
        if lane in AFTER_MIGRATION:
            self._stage.is_migrated.wait()
        for fault in faults:
            if self._closing.wait(fault.gap_s):
                return
            self._begun[lane] += 1
            if fault.kind in COSTLY and not self._may_cost_an_attempt():
                self.missed[fault.kind] += 1
                continue
            try:
                strikes[fault.kind](fault)
            except UNREACHABLE as error:
                self.missed[fault.kind] += 1
                self._stage.notes.append(f"{fault.kind}: {error!r}")
            except Exception as error:
                self._stage.violations.append(f"the drill could not strike: {fault.kind}: {error!r}")
            else:
                self.struck[fault.kind] += 1

    def _await_first_run(self) -> None:
        """Faults that strike before anything works would hit nothing."""
        until_s = time.monotonic() + WORKS_WITHIN_S
        while not self._stage.seen.finished and time.monotonic() < until_s and not self._closing.wait(0.1):
            continue

    def _may_cost_an_attempt(self) -> bool:
        """Wait until no run is near the end of its attempts; False when that takes too long."""
        until_s = time.monotonic() + HOLD_BACK_S
        while self._stage.seen.tries > MOST_TRIES:
            if time.monotonic() > until_s or self._closing.wait(0.2):
                return False
        return True
