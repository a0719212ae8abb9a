"""What people ask of ciapp while it works: cancel, rerun, purge, backup; again, and at the same moment.

In:  a stage.
Out: each command as a fault, by its name; at the end every commit with a run that was tested, as the oracle
     has no verdict on a cancelled one.

Each command is held against the ledger at once. A cancelled run stays cancelled until the drill itself asks
for it again, so one that a late report finishes is found. A command may fail because another fault has taken
the ledger away; whether it had done its work by then, nobody can know.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from ciapp.errors import CiError, LedgerError
from ciapp.results.backup import open_backup, restore
from ciapp.results.database import Database
from ciapp.results.report import State, Status
from ciapp.results.runs import Run, get_run
from ciapp.results.store import load_report
from tests.drill.collecting import Collecting
from tests.drill.evidence import Evidence, gather
from tests.drill.plan import PlannedFault
from tests.drill.stage import LEASE_S, REPOSITORY, Stage
from tests.drill.striking import NothingToStrikeError, tests_of
from tests.support.at_once import Said, at_once

Answer = TypeVar("Answer")
AWAY = CiError.exit_code
ANSWERS_WITHIN_S = 90.0  #: the ledger, after whatever struck it
AT_ONCE = 6  #: processes
RUNS_WITHIN_S = 10.0  #: a run that can be struck; there may be none
FROZEN_AT_MOST_S = LEASE_S / 2  #: once the run is cancelled: others of that worker are to keep their leases
FROZEN_TRIES = 3
REPORTS_WITHIN_S = 6.0  #: a worker that goes on again
RACERS = ("cancel", "rerun", "cancel", "rerun")


class Asked(msgspec.Struct):
    """How often something was done to a run at people's request."""

    cancelled: int = 0
    queued: int = 0
    unknown: int = 0  #: commands that failed, and may have done it all the same


class Terminals:
    """People at their terminals."""

    def __init__(self, stage: Stage, collecting: Collecting) -> None:
        self._stage = stage
        self._collecting = collecting
        self.asked: dict[int, Asked] = {}  #: by run
        self.purged: list[Evidence] = []  #: runs that the ledger has no more
        self._cancelled: dict[int, Run] = {}  # as they were when the ledger had them cancelled
        self._backups = stage.ci.folder / "backups"
        self.strikes: dict[str, Callable[[PlannedFault], None]] = {
            "run cancelled": self._cancel,
            "run cancelled under a frozen worker": self._cancel_frozen,
            "run asked for again": self._rerun,
            "cancel and rerun at once": self._race,
            "ledger purged": self._purge,
            "ledger backed up": self._back_up,
        }

    def settle(self) -> None:
        """Ask for every commit that has no tested run; nothing strikes any more."""
        with self._stage.terminals:
            runs = self._stage.look().runs
            for run in runs:
                self._check_still_cancelled(run)
                asked = self._of(run)
                if run.status is Status.CANCELLED and not asked.cancelled + asked.unknown:
                    self._complain(run, "is cancelled, and nobody asked for that")
            tested = {one.run.commit for one in self.purged}
            wanted = [run.commit for run in runs if run.status is Status.CANCELLED]
            wanted += sorted(self._stage.gone - tested - {run.commit for run in runs})
            for start in range(0, len(wanted), AT_ONCE):
                words = [("rerun", REPOSITORY, commit) for commit in wanted[start : start + AT_ONCE]]
                for commit, said in zip(wanted[start:], self._give(*words), strict=False):
                    if said.code or "is queued" not in said.text:
                        self._stage.violations.append(f"rerun of {commit} says {said}")
            for run in runs:
                if run.status is Status.CANCELLED:
                    self._of(run).queued += 1
            self._cancelled.clear()
            self._stage.look()

    def judge_backups(self) -> list[str]:
        """Restore the last backup elsewhere; what is wrong with what comes out of it."""
        made = sorted(self._backups.glob("[!.]*"), key=lambda file: file.stat().st_mtime_ns)
        drafts = [f"{file} is still there" for file in self._backups.glob(".*")]
        if not made:
            return drafts
        database = Database(f"sqlite:///{self._stage.ci.folder / 'restored.sqlite3'}")
        try:
            database.migrate()
            restore(database, made[-1])
            with database.read() as connection:
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                waits = "SELECT count(*) FROM runs WHERE state = 'running'"
                running = connection.exec_driver_sql(waits).scalar()
        except CiError as error:
            return [f"{made[-1]} cannot be restored: {error}"]
        finally:
            database.close()
        found = [f"{made[-1]} has rows that belong to none: {broken[:3]}"] if broken else []
        return drafts + found + ([f"{made[-1]}: {running} runs go on after a restore"] if running else [])

    def _cancel(self, fault: PlannedFault) -> None:
        """Once, or twice at the same moment, and then once more."""
        with self._stage.terminals:
            wanted = State.RUNNING if fault.victim % 3 else State.QUEUED
            run = self._pick(
                fault, lambda run: run.state is wanted, lambda run: run.state is not State.FINISHED
            )
            self._check_still_cancelled(run)
            words = [("cancel", REPOSITORY, run.commit)] * (1 + fault.victim % 2)
            self._hold_against(run, [*self._give(*words), *self._give(words[0])])

    def _rerun(self, fault: PlannedFault) -> None:
        """Once, or twice at the same moment: what is under way, or was cancelled, or was tested.

        And then once more: now it waits, or is under way.
        """
        with self._stage.terminals:
            fits: list[Callable[[Run], bool]] = [
                lambda run: run.state is State.RUNNING,
                lambda run: run.status is Status.CANCELLED,
                lambda run: run.status is not None,
            ]
            run = self._pick(fault, fits[fault.victim % 3], fits[-1])
            self._check_still_cancelled(run)
            words = [("rerun", REPOSITORY, run.commit)] * (1 + fault.victim % 2)
            self._hold_against(run, [*self._give(*words), *self._give(words[0])])

    def _cancel_frozen(self, fault: PlannedFault) -> None:
        """Cancel a run while its worker is frozen, which then reports what the tests came to meanwhile.

        And again with another run when it does not: other faults may have struck the worker, or the run may
        have finished first.
        """
        for number in range(FROZEN_TRIES):
            with self._stage.terminals:
                if self._cancel_one_frozen(self._await_running(fault.victim + number)):
                    return
        raise NothingToStrikeError("no late report came")

    def _cancel_one_frozen(self, run: Run) -> bool:
        """Whether it was cancelled, and a report came after that."""
        worker = self._stage.services[run.worker.partition("@")[0]]
        before = self._await_ledger(lambda: gather(self._stage.database, run))
        worker.freeze(signal.SIGSTOP)
        try:
            if not self._collecting.keep([run.commit]):
                raise NothingToStrikeError("the commit is gone whose tests run")
            self._hold_against(run, self._give(("cancel", REPOSITORY, run.commit)))
            _await(lambda: not tests_of(worker), FROZEN_AT_MOST_S)
        finally:
            worker.freeze(signal.SIGCONT)
        return run.id in self._cancelled and self._is_refused(before)

    def _is_refused(self, before: Evidence) -> bool:
        """Whether a report comes on a run that is cancelled, which may change nothing.

        `before` is what the ledger had on the run while it went on.
        """
        run, database = before.run, self._stage.database

        def has_report() -> bool:
            return self._await_ledger(lambda: load_report(database, run.id, run.attempt)) is not None

        is_late = _await(has_report, REPORTS_WITHIN_S)
        now = self._await_ledger(lambda: get_run(database, run.id))
        self._check_still_cancelled(now or run)
        if self._await_ledger(lambda: gather(database, run)).accepted != before.accepted:
            self._complain(run, "was cancelled, and what its worker reported after that was accepted")
        return is_late

    def _race(self, fault: PlannedFault) -> None:
        with self._stage.terminals:
            run = self._pick(fault, lambda run: run.state is not State.FINISHED)
            self._check_still_cancelled(run)
            self._hold_against(run, self._give(*((word, REPOSITORY, run.commit) for word in RACERS)))

    def _purge(self, _fault: PlannedFault) -> None:
        """A third of what has finished. What goes is judged by what the ledger had on it just before."""
        with self._stage.terminals:
            before = self._await_ledger(self._stage.look).runs
            tested = [run for run in before if run.status not in (None, Status.CANCELLED)]
            if not tested:
                raise NothingToStrikeError("nothing was tested yet")
            finished = sum(run.status is not None for run in before)
            known = {run.id: gather(self._stage.database, run) for run in tested}
            self._collecting.keep(run.commit for run in before if run.id not in known)
            [said] = self._give(("purge", "--keep-runs", str(finished - finished // 3)))
            after = self._await_ledger(lambda: {run.id for run in self._stage.look().runs})
            gone = [run for run in before if run.id not in after]
            self._stage.gone |= {run.commit for run in gone}
            self.purged += [known[run.id] for run in gone if run.id in known]
            for run in gone:
                self._cancelled.pop(run.id, None)
        self._stage.notes.append(f"{said.text.strip()}; gone are {len(gone)} of {len(before)} runs")

    def _back_up(self, fault: PlannedFault) -> None:
        self._backups.mkdir(exist_ok=True)
        file = self._backups / f"{fault.victim}.gz"
        file.unlink(missing_ok=True)
        with self._stage.terminals:
            [said] = self._give(("backup", str(file)))
        if said.code == AWAY and not file.exists():
            raise NothingToStrikeError(f"the ledger is away: {said.text.strip()}")
        try:
            with open_backup(file) as backup:
                rows = Counter(name for name, _ in backup.rows())
        except CiError as error:
            self._stage.violations.append(f"a backup that ended with {said} is none: {error}")
        else:
            self._stage.notes.append(f"backup: {rows['runs']} runs, {rows['reports']} reports")

    def _pick(self, fault: PlannedFault, *fits: Callable[[Run], bool]) -> Run:
        """A run whose commit can be asked for again; by preference one that fits, best first."""
        runs = self._await_ledger(self._stage.look).runs
        chance = random.Random(fault.victim)
        groups = [[run for run in runs if fit(run)] for fit in fits]
        for group in (*groups, list(runs)):
            for run in chance.sample(group, len(group)):
                if self._collecting.keep([run.commit]):
                    return run
        raise NothingToStrikeError("there is no run whose commit is still there")

    def _await_running(self, victim: int) -> Run:
        """A run whose worker is testing."""
        found: list[Run] = []

        def look() -> bool:
            testing = [worker.name for worker in self._stage.workers if tests_of(worker)]
            runs = self._await_ledger(self._stage.look).runs if testing else ()
            found[:] = [
                run for run in runs if run.state is State.RUNNING and run.worker.partition("@")[0] in testing
            ]
            return bool(found)

        if not _await(look, RUNS_WITHIN_S):
            raise NothingToStrikeError("no tests run")
        return found[victim % len(found)]

    def _give(self, *commands: Sequence[str]) -> list[Said]:
        said = at_once(self._stage.ci, *commands)
        for words, one in zip(commands, said, strict=True):
            if one.code not in (0, AWAY):
                self._stage.violations.append(f"`ciapp {' '.join(words)}` ended with {one.code}: {one.text}")
        return said

    def _hold_against(self, before: Run, said: list[Said]) -> None:
        """Compare what commands on a run said with what the ledger has now."""
        unknown = sum(one.code != 0 for one in said)
        cancelled = sum(one.text.endswith(": cancelled\n") for one in said)
        queued = sum("is queued" in one.text for one in said)
        asked = self._of(before)
        asked.cancelled += cancelled
        asked.queued += queued
        asked.unknown += unknown
        run = self._await_ledger(lambda: get_run(self._stage.database, before.id))
        words = [one.text.strip() for one in said]
        if run is None:
            self._complain(before, f"is gone, and nobody purged it: {words}")
            return
        was_active = before.state is not State.FINISHED
        if cancelled > was_active + queued + unknown:
            self._complain(run, f"was cancelled more often than it was asked for: {words}")
        if run.status is Status.CANCELLED and not (cancelled or unknown or before.id in self._cancelled):
            self._complain(run, f"is cancelled, which nobody says to have done: {words}")
        if cancelled and not queued and not unknown and run.status is not Status.CANCELLED:
            self._complain(run, f"is {run.state} as {run.status}, and was cancelled: {words}")
        if queued and not cancelled and not unknown and was_finished_still(before, run):
            self._complain(run, f"was not queued again: {words}")
        if not any((cancelled, queued, unknown, was_active)) and run.status is not before.status:
            self._complain(run, f"is {run.status} and was {before.status}, by nobody: {words}")
        self._cancelled.pop(run.id, None)
        if run.status is Status.CANCELLED:
            self._cancelled[run.id] = run

    def _check_still_cancelled(self, run: Run) -> None:
        known = self._cancelled.get(run.id)
        if known is not None and (run.status, run.attempt) != (Status.CANCELLED, known.attempt):
            self._complain(run, f"was cancelled, and is {run.state} as {run.status} at attempt {run.attempt}")

    def _await_ledger(self, ask: Callable[[], Answer]) -> Answer:
        until_s = time.monotonic() + ANSWERS_WITHIN_S
        while True:
            try:
                return ask()
            except LedgerError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.5)

    def _of(self, run: Run) -> Asked:
        return self.asked.setdefault(run.id, Asked())

    def _complain(self, run: Run, what: str) -> None:
        self._stage.violations.append(f"run {run.id} of {run.commit[:12]} {what}")


def _await(look: Callable[[], bool], within_s: float) -> bool:
    """Whether it is so within that time."""
    until_s = time.monotonic() + within_s
    while not look():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.05)
    return True


def was_finished_still(before: Run, now: Run) -> bool:
    """Whether a run that had finished is just as it was."""
    return before.status is not None and (now.state, now.attempt) == (State.FINISHED, before.attempt)
