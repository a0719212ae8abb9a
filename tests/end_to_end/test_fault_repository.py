"""Repositories that vanish, are damaged, or lose commits while these wait: each accepted commit is tested."""

from __future__ import annotations

import unittest
from pathlib import Path

import pytest

from ciapp.results.attempts import REPORTED
from ciapp.results.report import State
from ciapp.results.runs import Run
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, RabbitmqPostgresql, eventually

ATTEMPTS = 4  #: one more than end a run that is lost for another reason
AWAY_S = 30.0  #: until so many attempts, on a machine that does much else


class Repository:
    """A commit waits, and no worker has it yet, when something befalls its repository."""

    ci: Installation

    def push_unseen(self) -> str:
        """Push a commit that waits until a worker comes."""
        commit = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})
        eventually(lambda: [run.sends for run in self.ci.runs(commit)] == [1], "it is sent")
        return commit

    @property
    def bare(self) -> Path:
        return self.ci.folder / "team.git"

    def tried(self, commit: str) -> Run | None:
        """The run, once that many attempts could not fetch its commit."""
        run = self.only_run(commit)
        return run if run.state is State.QUEUED and run.attempt >= ATTEMPTS else None

    def assert_outlived(self, commit: str, said: str) -> None:
        """Wait for attempts that are lost; after that, whoever mends the repository needs to do no more."""
        run = eventually(lambda: self.tried(commit), f"it is tried: {self.ci.logs()}", AWAY_S)
        self.assertEqual(0, run.tries)
        self.assertRegex(run.reason, f"^{commit} cannot be fetched from {self.bare}: .*{said}")

    def assert_tested(self, *commits: str) -> None:
        """Each has one right report, and lost attempts only for the reason of the test."""
        for attempts in assert_one_right_report_each(self, self.ci, list(commits)):
            for lost in attempts[:-1]:
                self.assertIn("cannot be fetched", lost.ending)
            self.assertEqual(REPORTED, attempts[-1].ending)
        assert_nothing_is_left(self.ci)

    def test_one_that_vanishes_for_a_while_costs_no_commit(self) -> None:
        commit = self.push_unseen()
        aside = self.bare.rename(self.ci.folder / "aside.git")
        self.start_worker()
        self.assert_outlived(commit, "does not appear to be a git repository")
        aside.rename(self.bare)
        later = self.push_unseen()
        self.assert_tested(commit, later)

    def test_one_whose_objects_are_damaged_costs_no_commit_once_it_is_mended(self) -> None:
        commit = self.push_unseen()
        name = self.ci.git("rev-parse", f"{commit}:tests/test_a.py", cwd=self.bare)
        file = self.bare / "objects" / name[:2] / name[2:]
        whole = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(whole[: len(whole) // 2])
        self.start_worker()
        self.assert_outlived(commit, "fatal: ")
        file.write_bytes(whole)
        self.assert_tested(commit)

    def test_a_commit_that_is_forced_away_and_collected_as_garbage_is_tested(self) -> None:
        self.start_worker()
        held = self.push_held()
        run = self.running(held)
        waiting = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})
        eventually(lambda: self.ci.runs(waiting), "it is recorded")
        self.ci.git("commit", "--quiet", "--amend", "--message", "Other", cwd=self.clone)
        self.ci.push(self.clone, "--force", "origin", "HEAD:main")
        self.ci.git("reflog", "expire", "--expire=now", "--all", cwd=self.bare)
        self.ci.git("gc", "--quiet", "--prune=now", cwd=self.bare)
        self.let_go(run)
        self.assert_tested(held, waiting, self.ci.git("rev-parse", "HEAD", cwd=self.clone))


class TestEmbedded(Repository, HeldRuns):
    pass


@pytest.mark.slow  # what decides is the same, and waits most of its time
class TestRabbitmqPostgresql(Repository, RabbitmqPostgresql, HeldRuns):
    def new_installation(self, *settings: str) -> Installation:
        return self.install(*settings)


if __name__ == "__main__":
    unittest.main()
