"""From spool files to messages: the loop that forgets nothing.

In:  spool records of the repositories on this host; the ledger.
Out: ledger rows, messages for workers, and runs taken back from workers that fell silent.

Every step looks at what is, not at what happened: a record is there or not, a ref differs from the ledger or
not, a run was sent or not, its beat moved or not. So the loop may be killed anywhere and started again, twice
at once or on several hosts, and the order inside a step is all that matters:

    pin the tips → commit the rows → delete the spool record → send the message
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ciapp.errors import BrokerError, GitError, LedgerConflictError, LedgerError
from ciapp.git import Repository
from ciapp.intake.hook import is_removed
from ciapp.intake.leases import Leases
from ciapp.intake.pinning import Pinning
from ciapp.intake.pins import FOUND_RECORD
from ciapp.intake.presence import Presence
from ciapp.intake.push import RefUpdate, changed_refs
from ciapp.intake.recording import Change, policy_of, record_change
from ciapp.intake.seats import Seats
from ciapp.intake.spool import read_records
from ciapp.logs import Absence
from ciapp.results.database import Database, stored_text
from ciapp.results.matrix import DEFAULT
from ciapp.results.pushes import (
    KnownRepository,
    has_push,
    list_repositories,
    seen_refs,
)
from ciapp.results.queue import count_queues, next_runs, release_runs, reserve_runs, unanswered_runs
from ciapp.results.retention import purge, retention_of
from ciapp.results.runs import Run, running_runs
from ciapp.results.workers import Worker, list_workers, served
from ciapp.settings import Settings

logger = logging.getLogger(__name__)

Send = Callable[[Sequence[Run]], None]
IDLE_S, BUSY_S, TROUBLE_S = 1.0, 0.05, 2.0  #: pauses between steps
SETTLE_S = 3.0  #: a ref must differ for so long before it counts as changed without a push
RETAIN_EVERY_S, RETAIN_AGAIN_S = 300.0, 5.0  #: between looks for runs to purge, and while some are left
RETAIN_WITHIN_S = 0.5  #: how long one purge keeps the other steps waiting


class Dispatcher:
    """Moves pushes into the ledger, and runs to workers."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        send: Send,
        clock: Callable[[], float] = time.monotonic,
        *,
        reach_broker: Callable[[], object] = lambda: None,
    ) -> None:
        """`send` and `reach_broker` raise BrokerError."""
        self._clock = clock
        self._settings = settings
        self._database = database
        self._send = send
        self._reach_broker = reach_broker
        self._trouble: dict[int, str] = {}
        self._leases = Leases(settings, database, clock)
        self._odd_refs: dict[int, dict[RefUpdate, float]] = {}
        self._reconciled_at: dict[int, float] = {}
        self._pinning: dict[KnownRepository, Pinning] = {}
        self._retain_at = 0.0
        self._workers: list[Worker] = []  #: as of the last step

    def run(self, presence: Presence, should_stop: Callable[[], bool]) -> None:
        """Step until told to stop; what cannot be reached is tried again, and said once in a while.

        While runs wait for room, a step is due as rarely as ever; only the room is looked at in between.
        """
        absence, step_at_s, is_woken, is_broker_there = Absence(logger), self._clock(), False, False
        while not should_stop():
            try:
                if is_woken or self._clock() >= step_at_s:
                    step_at_s = self._clock() + IDLE_S
                    self.announce(presence)
                    have_more = self.step()
                else:
                    have_more = self.send_waiting(in_between=True)
                pause_s = BUSY_S if have_more else IDLE_S
                if not is_broker_there:
                    # With nothing to send, nobody would notice.
                    self._reach_broker()
                    is_broker_there = True
                absence.end()
            except LedgerConflictError as error:  # the others can still beat
                logger.warning("step given up", extra={"error": str(error)})
                pause_s = BUSY_S
            except (LedgerError, BrokerError) as error:
                is_ledger = isinstance(error, LedgerError)
                if is_ledger:
                    self._leases.forget()
                else:
                    is_broker_there = False
                absence.note("ledger" if is_ledger else "broker", error)
                pause_s = TROUBLE_S
            is_woken = bool(presence.wait(pause_s))

    def announce(self, presence: Presence) -> None:
        """Let the hooks of this host know that a dispatcher is there."""
        for repository in self._repositories():
            presence.announce(Path(repository.git_dir))

    def step(self) -> bool:
        """Do all that is to be done now; whether more will be soon."""
        for repository in self._repositories():
            self._serve(repository)
        self._leases.take_back()
        self.retain()
        self._workers = list_workers(self._database)
        self.send_again()
        return self.send_waiting()

    def _serve(self, repository: KnownRepository) -> None:
        """Do what is to be done for one repository; trouble with it is its own."""
        try:
            self.take_in(repository)
            self.reconcile(repository)
            self._pins(repository).settle()
            self._trouble.pop(repository.id, None)
        except (GitError, OSError, LedgerError) as error:
            # Raises when the ledger itself is away, not just unwilling to take what this one brings.
            self._database.revision()
            self._say_trouble(repository, str(error))
        except Exception as error:
            # An edge like a task's: here somebody else's data begins, and a fault of ours that one repository
            # brings out would end the dispatcher for all of the host, at each start again.
            self._say_trouble(repository, f"{type(error).__name__}: {error}", error)

    def take_in(self, repository: KnownRepository) -> None:
        """Bring a repository's spool records into the ledger, oldest first."""
        for record in read_records(Path(repository.git_dir)):
            if not has_push(self._database, repository.id, record.id):
                change = Change(
                    record=record.id,
                    received_at=record.received_at,
                    updates=record.updates,
                    pusher=record.pusher,
                    options=record.options,
                )
                record_change(self._settings, self._database, repository, change)
            record.discard()

    def reconcile(self, repository: KnownRepository) -> None:
        """Find refs that changed without a spool record: a hook that was lost, or a change by hand."""
        now = self._clock()
        odd = self._odd_refs.get(repository.id, {})
        since = now - self._reconciled_at.get(repository.id, -self._settings.reconcile_s)
        if since < (SETTLE_S if odd else self._settings.reconcile_s):
            return
        self._reconciled_at[repository.id] = now
        self._pins(repository).look_again(now)
        current = {
            name: value
            for name, value in Repository(Path(repository.git_dir)).refs().items()
            if policy_of(self._settings, repository.name, name) != "off"
        }
        seen = seen_refs(self._database, repository.id)
        stored = {stored_text(name): name for name in current}
        found = changed_refs(current, {stored.get(name, name): value for name, value in seen.items()})
        self._odd_refs[repository.id] = {update: odd.get(update, now) for update in found}
        # A push that is just going on has moved its refs and not yet written its record.
        settled = tuple(one for one, at in self._odd_refs[repository.id].items() if now - at >= SETTLE_S)
        if settled:
            logger.warning(
                "refs changed without a push", extra={"repo": repository.name, "refs": len(settled)}
            )
            digest = hashlib.sha256(repr(sorted(map(repr, settled))).encode("utf-8", "backslashreplace"))
            moment = datetime.now(UTC)
            change = Change(
                record=f"{FOUND_RECORD}{moment:%Y%m%dT%H%M%S}-{digest.hexdigest()[:12]}",
                received_at=moment,
                updates=settled,
            )
            record_change(self._settings, self._database, repository, change)
            del self._odd_refs[repository.id]

    def _pins(self, repository: KnownRepository) -> Pinning:
        return self._pinning.setdefault(repository, Pinning(self._database, repository))

    def retain(self) -> None:
        """Delete what the settings do not keep, a little at a time."""
        retention = retention_of(self._settings.retention)
        if retention.keeps_all or time.monotonic() < self._retain_at:
            return
        done = purge(self._database, retention, within_s=RETAIN_WITHIN_S)
        self._retain_at = time.monotonic() + (RETAIN_EVERY_S if done.is_complete else RETAIN_AGAIN_S)
        if done.runs:
            logger.info("runs purged", extra={"runs": done.runs, "bytes": done.bytes})

    def send_waiting(self, *, in_between: bool = False) -> bool:
        """Send messages while there are seats for more under way; whether runs wait for a seat.

        In between two steps, a seat may stay free until it can be filled together with another.
        """
        counts = count_queues(self._database)
        waiting = [environment for environment, count in counts.items() if count.waiting]
        if not waiting:
            return False
        seats = Seats(self._workers, {environment: count.sent for environment, count in counts.items()})
        free = [environment for environment in waiting if seats.is_free(environment)]
        if free and (not in_between or seats.is_worth_filling):
            due = next_runs(self._database, seats.number, free)
            self._send_messages([run for run in due if seats.take(run.environment)])
        # For a version that no worker has, runs may wait for ever: nobody need look every moment.
        return any(_is_served(environment, self._workers) for environment in waiting)

    def send_again(self) -> None:
        """Send another message for each run whose message may be lost."""
        busy = Counter(run.worker.partition("#")[0] for run in running_runs(self._database))
        idle = served(worker for worker in self._workers if busy[worker.name] < worker.slots)
        due = unanswered_runs(self._database, idle)
        self._send_messages([run for run in due if _is_served(run.environment, self._workers)])

    def _send_messages(self, due: Sequence[Run]) -> None:
        reserved = reserve_runs(self._database, due) if due else []
        if reserved:
            try:
                self._send(reserved)
            except BrokerError:
                release_runs(self._database, reserved)
                raise

    def _repositories(self) -> list[KnownRepository]:
        known = list_repositories(self._database, self._settings.host_name)
        return [one for one in known if not is_removed(Path(one.git_dir))]

    def _say_trouble(self, repository: KnownRepository, error: str, fault: Exception | None = None) -> None:
        """Say what is wrong with a repository once, not at every step; where, if the fault is ours."""
        if self._trouble.get(repository.id) != error:
            self._trouble[repository.id] = error
            fields = {"repo": repository.name, "error": error}
            logger.error("repository cannot be served", extra=fields, exc_info=fault)


def _is_served(environment: str, workers: Sequence[Worker]) -> bool:
    """Whether some worker takes runs of it; any that starts takes those of the default one."""
    return environment == DEFAULT or environment in served(workers)
