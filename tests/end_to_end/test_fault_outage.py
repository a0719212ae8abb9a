"""A database that is away for longer than a worker waits: what was found arrives, the rest begins anew."""

from __future__ import annotations

import subprocess
import sys
import unittest

import pytest

from ciapp.results.attempts import REPORTED
from ciapp.results.outbox import INSIST_S
from ciapp.testing.pipeline import LEDGER_WITHIN_S
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import DEADLINE_S, PASSING, Installation, eventually
from tests.support.servers import PrivatePostgreSQL

#: As `python -m ciapp.cli`, with waits of its own.
PROGRAM = """\
from ciapp.cli import main
from ciapp.results import outbox
from ciapp.testing import pipeline

outbox.INSIST_S, pipeline.LEDGER_WITHIN_S = {insist_s}, {ledger_within_s}
main()
"""
CLAIM_GIVEN_UP = "lost attempt not noted"


class Outage:
    """Mixed into a test case that says how long a worker waits."""

    lease_s = 30.0
    insist_s = INSIST_S
    ledger_within_s = LEDGER_WITHIN_S

    def new_installation(self, *settings: str) -> Installation:
        self.server = PrivatePostgreSQL(self)
        return Installation(self, *settings, database=self.server.url)

    def start_worker(self, name: str = "worker") -> subprocess.Popen[bytes]:
        waits = {"insist_s": self.insist_s, "ledger_within_s": self.ledger_within_s}
        program = (sys.executable, "-c", PROGRAM.format(**waits), "worker", "--concurrency=1")
        return self.ci.start_program(*program, log=name)

    def test_a_report_waits_on_disk_and_a_claim_is_given_up_and_its_run_handed_out_again(self) -> None:
        worker = self.start_worker()
        held = self.push_held()
        run = self.running(held)
        behind = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})
        eventually(lambda: [each for each in self.ci.runs(behind) if each.sent_token], "its message is sent")

        self.server.kill()
        self.let_go(run)
        log = self.ci.folder / "worker.log"
        eventually(
            lambda: CLAIM_GIVEN_UP in log.read_text(),
            f"the slot is done with the one, and gives the other up: {self.ci.logs()}",
            self.insist_s + self.ledger_within_s + DEADLINE_S,
        )
        outbox = self.ci.folder / "state" / "outbox"
        self.assertEqual([f"{run.id}-1.report"], [file.name for file in outbox.iterdir()])

        self.server.start()
        attempts = assert_one_right_report_each(self, self.ci, [held, behind])
        self.assertEqual([[REPORTED]] * 2, [[one.ending for one in each] for each in attempts])
        assert_nothing_is_left(self.ci)
        self.assertIsNone(worker.poll())


class TestImpatient(Outage, HeldRuns):
    insist_s = ledger_within_s = 1.0


@pytest.mark.slow
class TestMinutes(Outage, HeldRuns):
    """With the waits that workers have: the database is away for two minutes."""


if __name__ == "__main__":
    unittest.main()
