"""A repository that has lost an object: what needs it waits, is said once, and keeps nobody else."""

from __future__ import annotations

import unittest
from itertools import pairwise
from unittest import mock

from ciapp.errors import GitError
from ciapp.intake import dispatcher
from ciapp.intake.reconciliation import SETTLE_S
from ciapp.intake.recording import record_change
from ciapp.intake.trouble import AGAIN_AT_MOST_S
from tests.support.dispatching import RECONCILE_S, DispatcherTest


class LostObject(DispatcherTest):
    def setUp(self) -> None:
        super().setUp()
        [self.base] = self.commits(1)
        self.tree.push("main")
        self.step()
        self.tree.git("switch", "--quiet", "-c", "bad")
        self.bad = self.commits(2, "Bad")
        self.tree.git("switch", "--quiet", "-c", "good", self.base)
        [self.good] = self.commits(1, "Good")
        self.kept = b""

    def lose(self, commit: str) -> None:
        file = self.bare / "objects" / commit[:2] / commit[2:]
        self.kept = file.read_bytes()
        file.unlink()

    def bring_back(self, commit: str) -> None:
        (self.bare / "objects" / commit[:2] / commit[2:]).write_bytes(self.kept)

    def pass_steps(self, number: int, seconds: float) -> list[str]:
        """So many steps; returns the errors that they said."""
        with self.assertLogs("ciapp") as logged:
            for _ in range(number):
                self.pass_time(seconds)
                self.step()
        return [vars(said)["error"] for said in logged.records if said.levelname == "ERROR"]


class TestRecords(LostObject):
    def test_a_push_that_cannot_be_read_waits_is_said_once_and_keeps_no_other(self) -> None:
        self.tree.push("bad")
        self.lose(self.bad[0])
        self.tree.push("good")
        [said] = self.pass_steps(5, RECONCILE_S)

        self.assertIn("git rev-list failed", said)
        self.assertEqual([self.base, self.good], self.commits_with_run())
        self.assertEqual(1, len(self.records()))
        self.finish_all()
        self.step()
        self.assertEqual([self.bad[1]], self.pins(), "what waits is kept")

        self.bring_back(self.bad[0])
        self.pass_time(AGAIN_AT_MOST_S)
        self.step()
        self.assertEqual([self.base, self.good, *self.bad], self.commits_with_run())
        self.finish_all()
        self.step()
        self.assertEqual(([], []), (self.records(), self.pins()))

    def test_what_fails_again_and_again_is_tried_ever_more_rarely(self) -> None:
        self.tree.push("good")
        tries = []

        def fail(*_: object) -> None:
            tries.append(self.time_s)
            raise GitError("it cannot be read")

        with mock.patch.object(dispatcher, "record_change", fail):
            self.assertEqual(["it cannot be read"], self.pass_steps(20, 1.0))
        pauses = [later - sooner for sooner, later in pairwise(tries)]
        self.assertEqual([1.0, 1.0, 2.0, 4.0, 8.0], pauses)

    def test_a_commit_that_was_recorded_and_then_lost_keeps_no_push_from_being_tested(self) -> None:
        self.tree.push("bad")
        self.step()
        self.lose(self.bad[0])
        self.tree.push("good")
        self.step()
        self.assertEqual([self.base, *self.bad, self.good], self.commits_with_run())


class TestRefs(LostObject):
    def test_a_ref_that_cannot_be_read_keeps_no_other_from_being_found(self) -> None:
        self.lose_hook()
        self.tree.push("bad")
        self.lose(self.bad[0])
        self.tree.push("good")
        self.pass_time(RECONCILE_S)
        self.step()
        [said] = self.pass_steps(5, SETTLE_S)

        self.assertIn("git rev-list failed", said)
        self.assertEqual([self.base, self.good], self.commits_with_run())
        self.finish_all()
        self.step()
        self.assertEqual([], self.pins())

        self.bring_back(self.bad[0])
        self.pass_time(AGAIN_AT_MOST_S)
        self.step()
        self.assertEqual([self.base, self.good, *self.bad], self.commits_with_run())

    def test_refs_that_were_pushed_together_are_recorded_together(self) -> None:
        self.lose_hook()
        self.tree.push("bad", "good")
        with mock.patch.object(dispatcher, "record_change", wraps=record_change) as recorded:
            for _ in range(3):
                self.pass_time(RECONCILE_S)
                self.step()
        [call] = recorded.call_args_list
        self.assertEqual(2, len(call.args[3].updates))


if __name__ == "__main__":
    unittest.main()
