"""Pushes recorded and their runs tested in this process: the walk without a hook, a broker or a worker."""

from __future__ import annotations

import unittest
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from ciapp.git import Repository
from ciapp.intake.push import changed_refs
from ciapp.intake.recording import Change, record_change
from ciapp.results.database import Database
from ciapp.results.pushes import seen_refs
from ciapp.results.registration import register_repository
from ciapp.results.report import Report
from ciapp.results.runs import Run, find_runs
from ciapp.results.store import report_on, save_report
from ciapp.settings import Settings
from ciapp.testing import pipeline
from ciapp.testing.pipeline import test_run
from tests.support.git_repositories import WorkTree, new_folder
from tests.support.levels import usual_level


class Pipeline:
    """A repository `team`, whose refs are read where they are made, and a state folder of its own."""

    def __init__(self, test: unittest.TestCase, **settings: Any) -> None:
        """`settings` as the settings file has them."""
        folder = new_folder(test)
        folder.chmod(0o711)
        usual = {"state_dir": str(folder / "state"), "sandbox": usual_level()}
        self.settings = msgspec.convert(usual | settings, Settings)
        self.settings.state_path.mkdir(mode=0o755)
        self.database = Database(self.settings.database)
        self.database.migrate()
        self.tree = WorkTree(test, folder)
        self.repository = register_repository(
            self.database, name="team", host=self.settings.host_name, git_dir=str(self.git.git_dir), refs={}
        )
        self._at_end = test.addCleanup
        self._has_slot = False

    @property
    def git(self) -> Repository:
        """The repository that is pushed to."""
        return Repository(self.tree.path / ".git")

    def push(self, *options: str) -> None:
        """Record what the refs name now, as a push with these options would."""
        seen = seen_refs(self.database, self.repository.id)
        change = Change(
            record=uuid.uuid4().hex,
            received_at=datetime.now(UTC),
            updates=tuple(changed_refs(self.git.refs(), seen)),
            options=options,
        )
        record_change(self.settings, self.database, self.repository, change)

    def run(self, commit: str) -> Run:
        """The commit's only run, as the ledger has it."""
        [run] = find_runs(self.database, "team", [commit])
        return run

    def test(self, commit: str) -> Report:
        """The report of the next attempt at a commit's run."""
        run = self.run(commit)
        if (
            not self._has_slot
        ):  # a worker holds it as long as it lives, which this process does for other tests
            self._has_slot = True
            self._at_end(lambda: pipeline._slot(self.settings.state_path).release())
        found = test_run(run.id, run.attempt + 1, worker="worker@here", settings=self.settings)
        assert found is not None
        assert save_report(self.database, run.id, found)
        report = report_on(self.database, self.run(commit))
        assert report is not None
        return report

    def push_commit(self, files: dict[str, str], *options: str) -> Report:
        """Commit these files, push, test; the commit's report."""
        commit = self.tree.commit("Change", files)
        self.push(*options)
        return self.test(commit)
