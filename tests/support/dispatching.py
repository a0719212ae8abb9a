"""A dispatcher for tests, on a real repository, real pushes through the real hook, and a real ledger.

Only the far end is not there: messages go to a list in place of a broker.
"""

from __future__ import annotations

import logging
import unittest
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ciapp.intake.dispatcher import Dispatcher
from ciapp.intake.presence import Presence
from ciapp.intake.register import install_and_register
from ciapp.intake.spool import spool_folder
from ciapp.results.database import Database
from ciapp.results.matrix import DEFAULT
from ciapp.results.runs import Run, cancel_run, find_runs
from ciapp.results.workers import Worker, worker_is_here
from ciapp.settings import RepositorySettings, Settings
from tests.support.git_repositories import WorkTree, git, new_bare_repository, new_folder
from tests.support.ledgers import fresh_sqlite

RECONCILE_S = 30.0


def add_worker(
    database: Database, *environments: str, name: str = "celery@here", slots: int = 1, hindrance: str = ""
) -> None:
    """Let the ledger know of a worker that takes runs of these environments, or of the default one."""
    now = datetime.now(UTC)
    worker = Worker(
        name=name,
        host="here",
        slots=slots,
        sandbox="limits",
        python="3.11.7",
        environments=environments or (DEFAULT,),
        started_at=now,
        seen_at=now,
        hindrance=hindrance,
    )
    worker_is_here(database, worker)


class DispatcherTest(unittest.TestCase):
    """A bare repository with the hook, a work tree that pushes to it, a ledger, and a dispatcher."""

    init_options: tuple[str, ...] = ()

    def setUp(self) -> None:
        logging.getLogger("ciapp").setLevel(logging.INFO)
        self.state = new_folder(self)
        self.settings = Settings(state_dir=str(self.state), host="here", reconcile_s=RECONCILE_S)
        self.database = self.new_database()
        self.database.migrate()
        self.sent: list[tuple[str, int]] = []  #: commit and attempt of each message
        self.time_s = 1000.0
        self.bare = new_bare_repository(self, "team.git", *self.init_options)
        self.tree = WorkTree(self, self.bare, *self.init_options)
        self.presence = Presence()
        self.addCleanup(self.presence.close)
        self.install(self.bare)
        self.dispatcher = self.new_dispatcher()

    def new_database(self) -> Database:
        return fresh_sqlite(self)

    def new_dispatcher(self, send: Any = None) -> Dispatcher:
        return Dispatcher(self.settings, self.database, send or self.send, lambda: self.time_s)

    def install(self, path: Path, **options: Any) -> list[str]:
        lines = install_and_register(self.settings, self.database, path, **options)
        # A mark of a living dispatcher: pushes start none of their own.
        self.presence.announce(path if (path / "HEAD").exists() else path / ".git")
        return lines

    def set_repository(self, **settings: Any) -> None:
        """Settings of the repository, for a dispatcher that starts now."""
        self.settings = Settings(
            state_dir=str(self.state),
            host="here",
            reconcile_s=RECONCILE_S,
            repository={"team": RepositorySettings(**settings)},
        )
        self.dispatcher = self.new_dispatcher()

    def send(self, runs: Sequence[Run]) -> None:
        self.sent += [(run.commit, run.attempt + 1) for run in runs]

    def step(self) -> bool:
        return self.dispatcher.step()

    def pass_time(self, seconds: float) -> None:
        self.time_s += seconds

    def commits(self, number: int, prefix: str = "Change") -> list[str]:
        return [self.tree.commit(f"{prefix} {each}") for each in range(number)]

    def runs(self, name: str = "team") -> list[Run]:
        with self.database.read() as connection:
            ids = [row[0] for row in connection.exec_driver_sql('SELECT DISTINCT "commit" FROM runs')]
        return sorted(find_runs(self.database, name, ids), key=lambda run: run.id)

    def commits_with_run(self, name: str = "team") -> list[str]:
        """Commits that have a run, in the order in which they were recorded; none has two."""
        found = [run.commit for run in self.runs(name)]
        self.assertEqual(len(found), len(set(found)))
        return found

    def only_run(self) -> Run:
        [run] = self.runs()
        return run

    def finish_all(self) -> None:
        for run in self.runs():
            cancel_run(self.database, run.id)

    def pins(self) -> list[str]:
        """What our own refs keep."""
        return git(self.bare, "for-each-ref", "--format=%(objectname)", "refs/ciapp").split()

    def records(self) -> list[Path]:
        return [path for path in spool_folder(self.bare).iterdir() if path.is_file()]

    def lose_hook(self) -> None:
        """Pushes leave no record from now on."""
        (self.bare / "hooks" / "post-receive").unlink()
