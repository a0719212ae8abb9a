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
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ciapp.errors import BrokerError, GitError, LedgerConflictError, LedgerError
from ciapp.git import Repository
from ciapp.intake.backoff import Backoff
from ciapp.intake.hook import is_removed
from ciapp.intake.leases import Leases
from ciapp.intake.pinning import Pinning
from ciapp.intake.pins import FOUND_RECORD, drop_pins
from ciapp.intake.presence import Presence
from ciapp.intake.push import RefUpdate
from ciapp.intake.reconciliation import Reconciliation
from ciapp.intake.recording import Change, record_change
from ciapp.intake.seats import Seats
from ciapp.intake.spool import read_records
from ciapp.intake.trouble import Troubles
from ciapp.logs import Absence
from ciapp.results.database import Database
from ciapp.results.matrix import DEFAULT
from ciapp.results.pushes import KnownRepository, has_push, list_repositories
from ciapp.results.queue import count_queues, next_runs, release_runs, reserve_runs, unanswered_runs
from ciapp.results.retention import purge, retention_of
from ciapp.results.runs import Run, running_runs
from ciapp.results.workers import Worker, list_workers, may_take, served
from ciapp.settings import Settings

logger = logging.getLogger(__name__)

Send = Callable[[Sequence[Run]], None]
IDLE_S, BUSY_S, TROUBLE_S = 1.0, 0.05, 2.0  #: pauses between steps; the last while the ledger is away
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
        self._broker = Backoff(clock)
        self._troubles = Troubles(database, clock)
        self._leases = Leases(settings, database, clock)
        self._reconciliations: dict[KnownRepository, Reconciliation] = {}
        self._pinning: dict[KnownRepository, Pinning] = {}
        self._retain_at = 0.0
        self._workers: list[Worker] = []  #: as of the last step

    def run(self, presence: Presence, should_stop: Callable[[], bool]) -> None:
        """Step until told to stop; what cannot be reached is tried again, and said once in a while.

        While runs wait for room, a step is due as rarely as ever; only the room is looked at in between.
        While the broker is away, steps do all that needs none, as often as ever.
        """
        ledger, broker = Absence(logger), Absence(logger)
        step_at_s, is_woken, is_broker_there = self._clock(), False, False
        while not should_stop():
            try:
                is_due = self._broker.is_due
                if is_woken or self._clock() >= step_at_s:
                    step_at_s = self._clock() + IDLE_S
                    self.announce(presence)
                    have_more = self.step()
                else:
                    have_more = self.send_waiting(in_between=True)
                ledger.end()
                pause_s = BUSY_S if have_more else IDLE_S
                if is_due and not is_broker_there:
                    # With nothing to send, nobody would notice.
                    self._reach_broker()
                    is_broker_there = True
                    self._broker.note_success()
                    broker.end()
            except LedgerConflictError as error:  # the others can still beat
                logger.warning("step given up", extra={"error": str(error)})
                pause_s = BUSY_S
            except LedgerError as error:
                self._leases.forget()
                ledger.note("ledger", error)
                pause_s = TROUBLE_S
            except BrokerError as error:
                ledger.end()
                is_broker_there = False
                self._broker.note_failure()
                broker.note("broker", error)
                pause_s = IDLE_S
            is_woken = bool(presence.wait(pause_s))
            if is_woken:
                self._broker.ask()

    def announce(self, presence: Presence) -> None:
        """Let the hooks of this host know that a dispatcher is there."""
        for repository in self._repositories():
            presence.announce(Path(repository.git_dir))

    def step(self) -> bool:
        """Do all that is to be done now; whether more will be soon. Raises BrokerError, after all else."""
        for repository in self._repositories():
            self._serve(repository)
        self._leases.take_back()
        self.retain()
        self._workers = list_workers(self._database)
        self.send_again()
        return self.send_waiting()

    def _serve(self, repository: KnownRepository) -> None:
        """Do what is to be done for one repository; trouble with one thing keeps nobody from the others."""
        if repository not in self._pinning:
            self._pinning[repository] = Pinning(self._database, repository)
            self._reconciliations[repository] = Reconciliation(self._settings, self._database, repository)
        with self._troubles.contained(repository, "records"):
            self.take_in(repository)
        with self._troubles.contained(repository, "refs"):
            self.reconcile(repository)
        with self._troubles.contained(repository, "pins"):
            self._pinning[repository].settle()

    def take_in(self, repository: KnownRepository) -> None:
        """Bring a repository's spool records into the ledger, oldest first; what cannot be read waits."""
        for record in read_records(Path(repository.git_dir)):
            step = f"record {record.id}"
            if not self._troubles.is_due(repository, step):
                continue
            with self._troubles.contained(repository, step):
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
        """Find refs that changed without a spool record, and record that they did."""
        now_s, reconciliation = self._clock(), self._reconciliations[repository]
        if not reconciliation.is_due(now_s):
            return
        self._pinning[repository].look_again(now_s)
        found = reconciliation.find(now_s)
        due = [update for update in found if self._troubles.is_due(repository, f"ref {update.ref}")]
        if len(due) > 1:
            with suppress(GitError):  # one of them cannot be read, which is to keep nobody from the others
                self._record_found(repository, due)
                return
        for update in due:
            with self._troubles.contained(repository, f"ref {update.ref}"):
                self._record_found(repository, [update])

    def _record_found(self, repository: KnownRepository, updates: Sequence[RefUpdate]) -> None:
        digest = hashlib.sha256(repr(sorted(map(repr, updates))).encode("utf-8", "backslashreplace"))
        moment = datetime.now(UTC)
        change = Change(
            record=f"{FOUND_RECORD}{moment:%Y%m%dT%H%M%S}-{digest.hexdigest()[:12]}",
            received_at=moment,
            updates=tuple(updates),
            is_found=True,
        )
        try:
            record_change(self._settings, self._database, repository, change)
        except GitError:
            # What it has pinned is found again under another name.
            drop_pins(Repository(Path(repository.git_dir)), change.record)
            raise
        fields = {"repo": repository.name, "refs": len(updates)}
        logger.warning("refs changed without a push", extra=fields)
        for update in updates:
            self._reconciliations[repository].note_recorded(update)
            self._troubles.forget(repository, f"ref {update.ref}")

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
        if not self._broker.is_due:
            return False
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
        """Send another message for each run whose message may be lost.

        What none of its workers takes now, for want of room, they hold, or it waits for them.
        """
        if not self._broker.is_due:
            return
        busy = Counter(run.worker.partition("#")[0] for run in running_runs(self._database))
        free = (one for one in self._workers if busy[one.name] < one.slots and not one.hindrance)
        due = unanswered_runs(self._database, served(free))
        self._send_messages([run for run in due if may_take(run.environment, self._workers)])

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


def _is_served(environment: str, workers: Sequence[Worker]) -> bool:
    """Whether some worker takes runs of it; any that starts takes those of the default one."""
    return environment == DEFAULT or environment in served(workers)
