"""Which workers have fallen silent: the leases on runs, by this process's own monotonic clock.

In:  the runs that workers hold, looked at again and again; how long a worker may be silent.
Out: runs queued again whose beat did not move for a whole lease.

A beat is a write. So silence tells of a worker only while it could have been heard: a look that had to wait,
for the ledger's answer or for its write lock, counts as none, and one that came late counts little. And what
takes the run away names the beat that was watched, since one may come in while it waits for its turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from ciapp.results.database import Database
from ciapp.results.runs import Run, await_writes, lose_attempt, running_runs
from ciapp.settings import Settings
from ciapp.testing.lease import BEAT_EVERY_S

logger = logging.getLogger(__name__)
LOOK_COUNTS_S = 2 * BEAT_EVERY_S  #: of silence, for one look, however long ago the one before was


class _Watched(msgspec.Struct, frozen=True):
    """A run that a worker holds, as the last look found it."""

    pulse: tuple[int, int]  #: attempt and beat
    silent_s: float  #: how long the worker could have beaten, and did not


class Leases:
    """The leases on all runs, as this dispatcher has watched them."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._watched: dict[int, _Watched] = {}
        self._looked_at_s = clock()

    def forget(self) -> None:
        """Give every worker a whole lease: nobody could beat meanwhile."""
        self._watched.clear()

    def take_back(self) -> None:
        """Queue again the runs of workers that fell silent for longer than a lease."""
        began_s = self._clock()
        running = running_runs(self._database)
        if any(self._is_silent(run) for run in running):
            await_writes(self._database)
        now_s = self._clock()
        counted_s = min(now_s - self._looked_at_s, LOOK_COUNTS_S, self._settings.lease_s / 2)
        if now_s - began_s > BEAT_EVERY_S:
            # Whoever had to beat has waited as long, and may be told of the end of it later than we were.
            counted_s = 0.0
        self._looked_at_s = now_s
        watched = {}
        for run in running:
            silent_s = self._watched[run.id].silent_s + counted_s if self._is_silent(run) else 0.0
            watched[run.id] = _Watched((run.attempt, run.beat), silent_s)
            if silent_s >= self._settings.lease_s:
                self._lose(run)
        self._watched = watched

    def _is_silent(self, run: Run) -> bool:
        """Whether it did not beat since the last look."""
        known = self._watched.get(run.id)
        return known is not None and known.pulse == (run.attempt, run.beat)

    def _lose(self, run: Run) -> None:
        reason = f"worker {run.worker} was silent for {self._settings.lease_s:g} s"
        if lose_attempt(
            self._database,
            run.id,
            attempt=run.attempt,
            reason=reason,
            tries=self._settings.attempts,
            beat=run.beat,
        ):
            logger.warning("lease expired", extra={"run_id": run.id, "worker": run.worker})
