"""An older ciapp begins the drill, and is updated on the way: the ledger is migrated while its workers run.

In:  a stage; this project as it was before its last migration.
Out: the update as a fault. It comes once, early: what strikes before and meanwhile strikes the older ciapp.

A newer dispatcher migrates the ledger, runs that older workers have in hand end there, and the workers are
restarted in turn a while later. Whoever is killed and started again meanwhile is of the newer version.
"""

from __future__ import annotations

import signal
import time
import unittest
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ciapp.errors import LedgerError
from ciapp.results.report import State
from ciapp.results.schema import HEAD_REVISION
from tests.drill.plan import PlannedFault
from tests.drill.stage import AWAY_STATUS, REPOSITORY, Stage
from tests.drill.striking import NothingToStrikeError, Striking
from tests.support.at_once import at_once
from tests.support.installation import CODE
from tests.support.older import older_code

ANSWERS_WITHIN_S = 90.0  #: the ledger, after whatever struck it
TESTS_WITHIN_S = 20.0  #: a worker that has just begun
MIGRATES_WITHIN_S = 120.0  #: a dispatcher that other faults may kill as well
LOOK_EVERY_S = 0.05


def find_older(holder: unittest.TestCase) -> Path | None:
    """The code of an older ciapp, for as long as `holder` lasts; None where history is not at hand."""
    try:
        return older_code(holder)
    except unittest.SkipTest:
        return None


class Updating:
    """Lets a stage begin with an older ciapp, and updates it."""

    def __init__(self, stage: Stage, striking: Striking, older: Path | None) -> None:
        self._stage = stage
        self._striking = striking
        self._older = older
        self.strikes: dict[str, Callable[[PlannedFault], None]] = (
            {"ciapp updated": self._update} if older else {}
        )

    def begin(self) -> None:
        """From now on, what is started is of the older version."""
        self._stage.ci.environment["PYTHONPATH"] = str(self._older)
        self._stage.is_migrated.clear()
        self._stage.is_updated.clear()

    def end(self) -> None:
        """Let nobody wait for the update any more."""
        self._stage.is_migrated.set()
        self._stage.is_updated.set()

    def _update(self, fault: PlannedFault) -> None:
        try:
            before, held = self._migrate()
            self._stage.is_migrated.set()
            time.sleep(fault.lasts_s)
            self._install_hook()
            self._stage.services["monitor"].strike(signal.SIGTERM)
            self._striking.restart_workers()
        finally:
            self.end()
        moved = f"from {before} to {HEAD_REVISION}"
        self._stage.notes.append(
            f"the ledger was migrated {moved} while older workers had {held} runs in hand"
        )

    def _migrate(self) -> tuple[str, int]:
        """At which revision the ledger was, and how many runs older workers had in hand then."""
        stage = self._stage
        before = self._await_revision(bool, ANSWERS_WITHIN_S)
        if before == HEAD_REVISION:
            raise NothingToStrikeError("the ledger is of this version already")
        until_s = time.monotonic() + TESTS_WITHIN_S
        while not self._striking.await_tests(*stage.workers) and time.monotonic() < until_s:
            continue
        held = [run for run in stage.seen.runs if run.state is State.RUNNING]
        stage.ci.environment["PYTHONPATH"] = str(CODE)
        stage.services["dispatcher"].strike(signal.SIGTERM)
        if not self._await_revision(lambda revision: revision == HEAD_REVISION, MIGRATES_WITHIN_S):
            stage.violations.append(f"the ledger was not migrated within {MIGRATES_WITHIN_S:g} s")
        return before, len(held)

    def _install_hook(self) -> None:
        """As people do after an update, who try again while the ledger is away."""
        words = ("hook", "install", str(self._stage.bare), "--name", REPOSITORY)
        until_s = time.monotonic() + ANSWERS_WITHIN_S
        with self._stage.terminals:
            while (said := at_once(self._stage.ci, words)[0]).code:
                if said.code != AWAY_STATUS or time.monotonic() > until_s:
                    self._stage.violations.append(f"`ciapp {' '.join(words)}` ended with {said}")
                    return

    def _await_revision(self, fits: Callable[[str], bool], within_s: float) -> str:
        """The ledger's revision once it fits; empty when it never does."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            with suppress(LedgerError):
                revision = self._stage.database.revision()
                if fits(revision):
                    return revision
            time.sleep(LOOK_EVERY_S)
        return ""
