"""Pins by the ledger: on a real repository and a real ledger, step by step."""

from __future__ import annotations

import unittest

from sqlalchemy import update

from ciapp.git import Repository
from ciapp.intake.hook import remove_hook
from ciapp.results import schema
from ciapp.results.backup import back_up, restore
from ciapp.results.pushes import find_repository
from ciapp.results.report import State
from ciapp.results.reruns import rerun
from tests.support.dispatching import RECONCILE_S, DispatcherTest
from tests.support.git_repositories import git, new_folder


class TestRunPins(DispatcherTest):
    """Runs that no push keeps any more."""

    def past_commits(self, number: int = 1) -> list[str]:
        """Commits on main whose runs have ended, and whose pins are gone."""
        commits = self.commits(number)
        self.tree.push("main")
        self.step()
        self.finish_all()
        self.step()
        self.assertEqual([], self.pins())
        return commits

    def rerun(self, commit: str) -> None:
        # On whatever host: it has the ledger alone.
        self.assertTrue(rerun(self.database, find_repository(self.database, "team").id, commit))

    def force_away(self) -> None:
        """Another history in place of main, and no trace of what was there but pins."""
        self.tree.git("switch", "--quiet", "--orphan", "other")
        self.tree.commit("Instead")
        self.tree.push("--force", "-o", "ci.skip", "HEAD:main")
        git(self.bare, "reflog", "expire", "--expire=now", "--all")
        git(self.bare, "gc", "--quiet", "--prune=now")

    def assert_let_go(self) -> None:
        self.finish_all()
        self.step()
        self.assertEqual([], self.pins())

    def test_a_commit_that_is_asked_for_again_is_pinned_until_it_is_tested(self) -> None:
        [commit] = self.past_commits()
        self.rerun(commit)
        self.step()
        self.assertEqual([commit], self.pins())
        self.force_away()
        self.step()
        self.assertTrue(Repository(self.bare).has_commit(commit))
        self.assert_let_go()

    def test_what_ci_fresh_queues_again_is_pinned_until_it_is_tested(self) -> None:
        [commit] = self.past_commits()
        self.tree.push("-o", "ci.fresh", "main:again")
        self.step()
        self.step()
        self.assertIs(State.QUEUED, self.only_run().state)
        self.assertEqual([commit], self.pins())
        self.assert_let_go()

    def test_what_a_restored_ledger_queues_again_is_pinned_although_it_says_that_it_is(self) -> None:
        [_, tip] = self.commits(2)
        self.tree.push("main")
        self.step()
        file = new_folder(self) / "backup"
        back_up(self.database, file)
        for dispatcher in (self.dispatcher, self.new_dispatcher()):
            self.assert_let_go()
            restore(self.database, file, replace=True)
            self.dispatcher = dispatcher
            self.pass_time(RECONCILE_S)
            self.step()
            self.step()
            self.assertEqual([tip], self.pins())

    def test_of_a_backlog_the_newest_commit_is_pinned_and_keeps_the_rest(self) -> None:
        commits = self.past_commits(4)
        for commit in commits[:3]:
            self.rerun(commit)
        self.step()
        self.assertEqual([commits[2]], self.pins())
        with self.database.write() as connection:
            done = update(schema.runs).where(schema.runs.c.commit == commits[2])
            connection.execute(done.values(state=State.FINISHED))
        self.step()
        self.assertEqual([commits[1]], self.pins())
        self.assert_let_go()

    def test_a_commit_that_is_gone_keeps_no_other_from_being_pinned(self) -> None:
        gone, kept = self.past_commits(2)
        self.rerun(gone)
        self.rerun(kept)
        (self.bare / "objects" / gone[:2] / gone[2:]).unlink()
        self.step()
        self.assertEqual([kept], self.pins())
        self.assert_let_go()

    def test_a_pin_that_somebody_took_away_is_made_again(self) -> None:
        [commit] = self.past_commits()
        self.rerun(commit)
        self.step()
        git(self.bare, "update-ref", "-d", f"refs/ciapp/run/{commit}")
        self.pass_time(RECONCILE_S)
        self.step()
        self.assertEqual([commit], self.pins())

    def test_a_dispatcher_that_starts_lets_go_of_what_another_has_left(self) -> None:
        [commit] = self.past_commits()
        self.rerun(commit)
        self.step()
        self.finish_all()
        self.dispatcher = self.new_dispatcher()
        self.step()
        self.assertEqual([], self.pins())

    def test_they_go_with_the_hook(self) -> None:
        [commit] = self.past_commits()
        self.rerun(commit)
        self.step()
        remove_hook(self.bare)
        self.step()
        self.assertEqual([], self.pins())


if __name__ == "__main__":
    unittest.main()
