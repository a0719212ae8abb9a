"""The pins of one repository, held against the ledger: what waits to be tested is kept, and nothing else.

In:  pushes with pins, and runs, as the ledger has them; the pins that are in the repository.
Out: pins made for runs that no push keeps any more; those let go whose runs have ended, or that nobody
     accounts for.

A push's pins are made where it is recorded and gone when its runs have ended. A run that is then asked for
once more, from whatever host, or that a restored ledger has queued again, has none: its commit may be forced
away and collected before a worker fetches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ciapp.git import Repository
from ciapp.intake.pins import Orphans, RunPins, drop_pins, without_pins
from ciapp.intake.spool import read_records
from ciapp.results.database import Database
from ciapp.results.pinned import mark_unpinned, pinned_pushes, settled_pushes, unkept_commits
from ciapp.results.pushes import KnownRepository


class Pinning:
    """The pins of one repository."""

    def __init__(self, database: Database, repository: KnownRepository) -> None:
        self._database = database
        self._repository = repository
        self._git_dir = Path(repository.git_dir)
        self._git = Repository(self._git_dir)
        self._orphans = Orphans()
        self._runs = RunPins()
        self._is_looked_at = False

    def settle(self) -> None:
        """Pin the commits of runs that nothing keeps, then let go of what is no longer needed."""
        if not self._is_looked_at:
            self._note_lost_pins()
        self._runs.keep(self._git, unkept_commits(self._database, self._repository.id))
        settled = settled_pushes(self._database, self._repository.id)
        if settled:
            for record in settled.values():
                drop_pins(self._git, record)
            mark_unpinned(self._database, list(settled))

    def look_again(self, now_s: float) -> None:
        """Hold all against what is really in the repository; `now_s` by the dispatcher's clock."""
        self._orphans.drop(self._git, self._records, now_s)
        self._is_looked_at = False
        self._runs.look_again()

    def _note_lost_pins(self) -> None:
        """A ledger that was restored from a backup tells of pins that are gone since."""
        # Asked for before the pins: whoever records a push pins first.
        told = pinned_pushes(self._database, self._repository.id)
        lost = without_pins(self._git, told)
        if lost:
            mark_unpinned(self._database, lost)
        self._is_looked_at = True

    def _records(self) -> Iterator[str]:
        yield from (record.id for record in read_records(self._git_dir))
        yield from pinned_pushes(self._database, self._repository.id).values()
