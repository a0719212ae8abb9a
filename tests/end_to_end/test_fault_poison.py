"""A commit that takes its worker down each time costs three attempts, and keeps nobody else waiting."""

from __future__ import annotations

import os
import signal
import unittest
from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from ciapp.results import schema
from ciapp.results.attempts import REPORTED
from ciapp.results.report import Status
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, eventually, rabbitmq_host
from tests.support.ledgers import fresh_postgresql_url

ATTEMPTS = 3


class Poison:
    """Each worker that runs the commit's tests is killed at that moment, main process and pool."""

    def take_down(self, commit: str, attempt: int) -> str:
        """Start a worker, have it begin the commit, kill it; returns why the attempt was lost."""
        worker = self.start_worker(f"victim{attempt}")
        name = self.running(commit, attempt).worker
        os.killpg(worker.pid, signal.SIGKILL)
        eventually(lambda: self.endings(commit)[-1], f"attempt {attempt} is lost: {self.ci.logs()}")
        return f"worker {name} was silent for {self.lease_s:g} s"

    def make_due(self) -> None:
        """Let the pauses between the attempts be over."""
        with self.ci.database.write() as connection:
            connection.execute(update(schema.runs).values(not_before=datetime.now(UTC)))

    def test_it_ends_as_infra_error_with_each_lost_attempt_named_and_the_queue_moves_on(self) -> None:
        poison = self.push_held()
        reasons = []
        for attempt in range(1, ATTEMPTS + 1):
            reasons.append(self.take_down(poison, attempt))
            self.make_due()
        others = [self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, f"{each}") for each in (1, 2)]
        survivor = self.start_worker("survivor")
        attempts = assert_one_right_report_each(self, self.ci, others)
        self.assertEqual([[REPORTED]] * len(others), [[one.ending for one in each] for each in attempts])

        run = self.only_run(poison)
        self.assertEqual((Status.INFRA_ERROR, ATTEMPTS), (run.status, run.attempt))
        self.assertEqual(reasons, self.endings(poison))
        said = self.ci.ciapp("report", "team", poison, code=3)
        for reason in reasons:
            self.assertIn(reason, said)
        self.assertIsNone(survivor.poll())
        self.assertEqual([], self.held_processes())
        assert_nothing_is_left(self.ci)


class TestEmbedded(Poison, HeldRuns):
    pass


@pytest.mark.slow
class TestRabbitmq(Poison, HeldRuns):
    """The broker delivers the message of a dead worker again: to no effect."""

    def new_installation(self, *settings: str) -> Installation:
        database = fresh_postgresql_url(self).replace("postgresql+psycopg://", "postgresql://")
        return Installation(self, *settings, broker=rabbitmq_host(self), database=database)


if __name__ == "__main__":
    unittest.main()
