"""From spool files to messages: the loop that forgets nothing.

In:  spool records of the repositories on this host; the ledger.
Out: ledger rows, messages for workers, and runs taken back from workers that fell silent.

Every step looks at what is, not at what happened: a record is there or not, a ref differs from the ledger or
not, a run was sent or not, its beat moved or not. So the loop may be killed anywhere and started again, twice
at once or on several hosts, and the order inside a step is all that matters:

    pin the tips → commit the rows → delete the spool record → send the message

A lease ends by this process's own monotonic clock, which no other clock can set back: a run whose beat did
not move while we watched for `lease_s` is taken from its worker.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ciapp.errors import BrokerError, GitError, LedgerError
from ciapp.git import Repository
from ciapp.intake.presence import Presence
from ciapp.intake.push import RefUpdate, changed_refs, new_commits, tips, untestable
from ciapp.intake.spool import SpoolRecord, read_records
from ciapp.results.database import Database, stored_text
from ciapp.results.pushes import (
    KnownRepository,
    NewPush,
    has_push,
    list_repositories,
    mark_unpinned,
    record_push,
    seen_refs,
    settled_pushes,
)
from ciapp.results.queue import count_queue, next_runs, release_runs, reserve_runs, unanswered_runs
from ciapp.results.runs import Run, lose_attempt, running_runs
from ciapp.results.workers import list_workers
from ciapp.settings import Settings

logger = logging.getLogger(__name__)

Send = Callable[[Sequence[Run]], None]
IDLE_S, BUSY_S, TROUBLE_S = 1.0, 0.05, 2.0  #: pauses between steps
FEWEST_UNDER_WAY = 4  #: messages sent ahead, so that a worker that starts finds work
SPARE = 2  #: messages sent beyond one for each slot, so that a free slot finds the next
SETTLE_S = 3.0  #: a ref must differ for so long before it counts as changed without a push
SKIP_OPTION = "ci.skip"


class Dispatcher:
    """Moves pushes into the ledger, and runs to workers."""

    def __init__(self, settings: Settings, database: Database, send: Send) -> None:
        self._settings = settings
        self._database = database
        self._send = send
        self._trouble: dict[int, str] = {}
        self._beats: dict[int, tuple[tuple[int, int], float]] = {}
        self._odd_refs: dict[int, dict[RefUpdate, float]] = {}
        self._reconciled_at: dict[int, float] = {}

    def run(self, presence: Presence, should_stop: Callable[[], bool]) -> None:
        """Step until told to stop; what cannot be reached is tried again, and said."""
        while not should_stop():
            try:
                self.announce(presence)
                pause_s = BUSY_S if self.step() else IDLE_S
            except LedgerError as error:
                logger.warning("ledger away", extra={"error": str(error)})
                # Nobody could beat meanwhile: everyone gets a whole lease once it is back.
                self._beats.clear()
                pause_s = TROUBLE_S
            except BrokerError as error:
                logger.warning("broker away", extra={"error": str(error)})
                pause_s = TROUBLE_S
            presence.wait(pause_s)

    def announce(self, presence: Presence) -> None:
        """Let the hooks of this host know that a dispatcher is there."""
        for repository in self._repositories():
            presence.announce(Path(repository.git_dir))

    def step(self) -> bool:
        """Do all that is to be done now; whether more will be soon."""
        for repository in self._repositories():
            try:
                self.take_in(repository)
                self.reconcile(repository)
                self.unpin(repository)
                self._trouble.pop(repository.id, None)
            except (GitError, OSError) as error:
                self._say_trouble(repository, str(error))
        self.take_back()
        return self.send_due()

    def take_in(self, repository: KnownRepository) -> None:
        """Bring a repository's spool records into the ledger, oldest first."""
        for record in read_records(Path(repository.git_dir)):
            if not has_push(self._database, repository.id, record.id):
                self._record(repository, record)
            record.discard()

    def reconcile(self, repository: KnownRepository) -> None:
        """Find refs that changed without a spool record: a hook that was lost, or a change by hand."""
        now = time.monotonic()
        odd = self._odd_refs.get(repository.id, {})
        since = now - self._reconciled_at.get(repository.id, -self._settings.reconcile_s)
        if since < (SETTLE_S if odd else self._settings.reconcile_s):
            return
        self._reconciled_at[repository.id] = now
        current = {
            name: value
            for name, value in Repository(Path(repository.git_dir)).refs().items()
            if self._is_tested(repository, name)
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
            self._take(
                repository,
                f"found-{moment:%Y%m%dT%H%M%S}-{digest.hexdigest()[:12]}",
                moment,
                settled,
            )
            del self._odd_refs[repository.id]

    def unpin(self, repository: KnownRepository) -> None:
        """Let go of the tips of pushes whose runs have all ended."""
        settled = settled_pushes(self._database, repository.id)
        if not settled:
            return
        git = Repository(Path(repository.git_dir))
        for record in settled.values():
            pins = git.run("for-each-ref", "--format=delete %(refname)", _pin_prefix(record))
            if pins:
                git.run("update-ref", "--stdin", stdin=pins + "\n")
        mark_unpinned(self._database, list(settled))

    def take_back(self) -> None:
        """Queue again the runs of workers that fell silent for longer than a lease."""
        now = time.monotonic()
        watched = {}
        for run in running_runs(self._database):
            pulse = (run.attempt, run.beat)
            known, since = self._beats.get(run.id, (pulse, now))
            watched[run.id] = (pulse, since if known == pulse else now)
            if now - watched[run.id][1] < self._settings.lease_s:
                continue
            reason = f"worker {run.worker} was silent for {self._settings.lease_s:g} s"
            if lose_attempt(
                self._database, run.id, attempt=run.attempt, reason=reason, tries=self._settings.attempts
            ):
                logger.warning("lease expired", extra={"run_id": run.id, "worker": run.worker})
        self._beats = watched

    def send_due(self) -> bool:
        """Send messages while there is room for more under way; whether runs wait for room."""
        counts = count_queue(self._database)
        slots = sum(worker.slots for worker in list_workers(self._database))
        room = max(FEWEST_UNDER_WAY, slots + SPARE) - counts.sent
        due = next_runs(self._database, room) if counts.waiting and room > 0 else []
        if counts.sent:
            due += unanswered_runs(self._database)
        reserved = reserve_runs(self._database, due) if due else []
        if reserved:
            try:
                self._send(reserved)
            except BrokerError:
                release_runs(self._database, reserved)
                raise
        return counts.waiting > 0

    def _repositories(self) -> list[KnownRepository]:
        return list_repositories(self._database, self._settings.host_name)

    def _say_trouble(self, repository: KnownRepository, error: str) -> None:
        """Say what is wrong with a repository once, not at every step."""
        if self._trouble.get(repository.id) != error:
            self._trouble[repository.id] = error
            logger.error("repository cannot be read", extra={"repo": repository.name, "error": error})

    def _is_tested(self, repository: KnownRepository, ref: str) -> bool:
        return self._settings.ref_policy(repository.name, ref) != "off"

    def _record(self, repository: KnownRepository, record: SpoolRecord) -> None:
        self._take(repository, record.id, record.received_at, record.updates, record.pusher, record.options)

    def _take(
        self,
        repository: KnownRepository,
        record: str,
        received_at: datetime,
        updates: Sequence[RefUpdate],
        pusher: str = "",
        options: tuple[str, ...] = (),
    ) -> None:
        # What a ref that is off brought stays new: another ref may bring it again, to be tested.
        updates = [update for update in updates if self._is_tested(repository, update.ref)]
        git = Repository(Path(repository.git_dir))
        for ref, said in untestable(git, updates).items():
            logger.info("nothing to test", extra={"repo": repository.name, "ref": ref, "reason": said})
        seen = set(seen_refs(self._database, repository.id).values())
        named = tips(git, updates)
        self._pin(git, record, named)
        started = time.monotonic()
        added = record_push(
            self._database,
            repository.id,
            NewPush(
                record=record,
                received_at=received_at,
                pusher=pusher,
                options=options,
                refs={update.ref: update.new for update in updates},
                tips=named,
                tested=self._to_test(repository, git, updates, seen, options),
            ),
            new_commits(git, updates, seen),
        )
        fields = {
            "repo": repository.name,
            "commits": added.commits,
            "runs": added.runs,
            "took_s": round(time.monotonic() - started, 3),
        }
        logger.info("push recorded", extra=fields)

    def _to_test(
        self,
        repository: KnownRepository,
        git: Repository,
        updates: Sequence[RefUpdate],
        seen: Iterable[str],
        options: tuple[str, ...],
    ) -> frozenset[str] | None:
        """Which of the new commits are to be tested; None for all of them."""
        if SKIP_OPTION in options:
            return frozenset()
        tip_only = [one for one in updates if self._settings.ref_policy(repository.name, one.ref) == "tip"]
        if not tip_only:
            return None
        whole = [one for one in updates if one not in tip_only]
        reached = new_commits(git, whole, seen) if whole else ()
        return frozenset(tips(git, tip_only)) | {commit.id for commit in reached}

    def _pin(self, git: Repository, record: str, named: dict[str, tuple[str, ...]]) -> None:
        """Keep the tips from git's garbage collection, whatever is pushed over them."""
        if named:
            prefix = _pin_prefix(record)
            lines = [f"update {prefix}{number} {tip}\n" for number, tip in enumerate(named)]
            git.run("update-ref", "--stdin", stdin="".join(lines))


def _pin_prefix(record: str) -> str:
    return f"refs/ciapp/push/{hashlib.sha256(record.encode('utf-8', 'backslashreplace')).hexdigest()[:20]}/"
