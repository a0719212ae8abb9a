"""`ciapp cancel` and `ciapp rerun` at every state of a run, from several terminals at the same moment."""

from __future__ import annotations

import subprocess
import time
import unittest
from dataclasses import dataclass

import pytest

from ciapp.results.attempts import list_attempts
from ciapp.results.report import State, Status
from ciapp.results.runs import Run
from ciapp.results.store import report_on
from tests.support.aftermath import assert_nothing_is_left
from tests.support.at_once import at_once
from tests.support.held import BOTH_PASSED, HeldRuns
from tests.support.installation import PASSING, Installation, RabbitmqPostgresql, eventually
from tests.support.processes import GONE_WITHIN_S

TERMINALS = ("cancel", "rerun", "rerun", "cancel", "rerun", "cancel")


@dataclass(frozen=True)
class End:
    """What the terminals made of a run."""

    cancelled: int  #: how many said that they cancelled it
    queued: int  #: how many said that they queued it again
    is_active: bool  #: whether it is to be tested, by what they said


class Terminals(HeldRuns):
    lease_s = 30.0

    def push_held_commits(self, number: int) -> list[str]:
        """Commits whose tests are held, pushed at once."""
        test = self.held_test()
        files = [{"tests/test_a.py": f"{test}# {each}\n"} for each in range(number)]
        commits = [self.ci.commit(self.clone, each) for each in files]
        self.ci.push(self.clone)
        eventually(lambda: all(self.ci.runs(commit) for commit in commits), "the push is recorded")
        return commits

    def find(self, commits: list[str], state: State, is_sent: bool) -> Run:
        """One of these commits' runs that is there now."""

        def found() -> Run | None:
            runs = [self.only_run(commit) for commit in commits]
            fit = [run for run in runs if run.state is state and (run.sent_token > run.attempt) == is_sent]
            return fit[0] if fit else None

        return eventually(found, f"a run is {state}, sent: {is_sent}")

    def race(self, commit: str) -> End:
        """Every terminal gives its command; what they say and the ledger must agree."""
        was_active = self.only_run(commit).state is not State.FINISHED
        said = at_once(self.ci, *((word, "team", commit) for word in TERMINALS))
        self.assertEqual({0}, {each.code for each in said}, said)
        cancelled = sum(each.text.endswith(": cancelled\n") for each in said)
        queued = sum("is queued" in each.text for each in said)
        others = sum("finished already" in each.text or "running already" in each.text for each in said)
        self.assertEqual(len(TERMINALS), cancelled + queued + others, said)
        active = was_active - cancelled + queued
        self.assertIn(active, (0, 1), said)
        run = self.only_run(commit)
        self.assertEqual(bool(active), run.state is not State.FINISHED, (said, run))
        if not active:
            self.assertEqual(Status.CANCELLED, run.status)
        return End(cancelled, queued, bool(active))

    def assert_gone_soon(self, processes: list[int]) -> None:
        started = time.monotonic()
        eventually(lambda: not set(processes) & set(self.held_processes()), "its process tree is gone", 30)
        took_s = time.monotonic() - started
        started = time.monotonic()
        subprocess.run(["true"], check=True)
        slack_s = 20 * (time.monotonic() - started)  # how late this machine is
        self.assertLess(took_s, GONE_WITHIN_S + slack_s)

    def finish(self, commits: list[str]) -> None:
        """Let every test go on until all runs have finished."""

        def are_finished() -> bool:
            self.let_all_go()
            return all(self.only_run(commit).state is State.FINISHED for commit in commits)

        eventually(are_finished, f"all runs finish: {self.ci.logs()}")

    def race_at_every_state(self) -> None:
        worker = self.start_worker()
        finished = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})
        self.ci.report(finished)
        held = self.push_held_commits(8)
        running = self.find(held, State.RUNNING, is_sent=False)
        self.running(running.commit)
        before = self.held_processes()
        sent = self.find(held, State.QUEUED, is_sent=True)
        pending = self.find(held, State.QUEUED, is_sent=False)
        ends = {run.commit: self.race(run.commit) for run in (pending, sent)}
        ends[finished] = self.race(finished)
        for commit in held:
            if commit not in ends and commit != running.commit:
                self.ci.ciapp("cancel", "team", commit)
                ends[commit] = self.race(commit)
                break
        self.assertLessEqual(set(before), set(self.held_processes()))
        ends[running.commit] = self.race(running.commit)
        self.assertGreater(ends[running.commit].cancelled, 0)
        self.assert_gone_soon(before)

        self.finish([finished, *held])
        for commit, end in ends.items():
            run = self.only_run(commit)
            self.assertEqual(Status.PASSED if end.is_active else Status.CANCELLED, run.status, (end, run))
            report = report_on(self.ci.database, run)
            assert report is not None
            self.assertEqual((run.status, run.attempt), (report.status, report.attempt))
            attempts = list_attempts(self.ci.database, run.id)
            self.assertTrue(all(each.ending and each.ended_at for each in attempts), attempts)
        for commit in set(held) - set(ends):
            self.assertEqual(BOTH_PASSED, self.ci.report(commit).counts)
        self.assertIsNone(worker.poll())
        self.assertEqual([], self.held_processes())
        assert_nothing_is_left(self.ci)


@pytest.mark.slow
class TestEmbedded(Terminals):
    def test_whoever_is_first_a_run_has_one_end_that_all_agree_on(self) -> None:
        self.race_at_every_state()


class TestRabbitmqPostgresql(RabbitmqPostgresql, Terminals):
    def new_installation(self, *settings: str) -> Installation:
        return self.install(*settings)

    def test_whoever_is_first_a_run_has_one_end_that_all_agree_on(self) -> None:
        self.race_at_every_state()


if __name__ == "__main__":
    unittest.main()
