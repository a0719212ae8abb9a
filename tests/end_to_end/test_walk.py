"""The whole walk, with real pushes, processes, brokers and databases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unittest

from ciapp.results.attempts import list_attempts
from ciapp.results.report import State, Status
from ciapp.results.workers import list_workers
from tests.support.installation import (
    FAILING,
    PASSING,
    SLOW,
    Embedded,
    Installation,
    RabbitmqPostgresql,
    RedisPostgresql,
    eventually,
)

LEASE_S = 4.0
MARGIN_S = 6.0  #: a look of the dispatcher at runs, one at seats, a message; on a machine that does much else


class Walk:
    """Mixed into a test case per combination of broker and database."""

    def install(self, *settings: str) -> Installation:
        raise NotImplementedError

    def test_a_pushed_commit_is_tested_and_its_fix_as_well(self):
        ci = self.install()
        clone = ci.make_repository()
        ci.start_all()
        broken = ci.push_commit(clone, {"tests/test_a.py": FAILING}, "Break it")
        fixed = ci.push_commit(clone, {"tests/test_a.py": PASSING}, "Fix it")

        self.assertEqual(Status.PASSED, ci.report(fixed).status)
        report = ci.report(broken)
        self.assertEqual((Status.FAILED, {"failed": 1}), (report.status, report.counts))
        self.assertIn("AssertionError: broken", report.tests[0].traceback)
        self.assertEqual(("Break it", ("refs/heads/main",)), (report.subject, report.refs))

        [run] = ci.runs(fixed)
        script = (
            "import json; from ciapp.celery import app;"
            f"r = app.AsyncResult({run.task_id!r}); print(json.dumps([r.state, r.get(timeout=9)]))"
        )
        printed = subprocess.run(
            [sys.executable, "-c", script], env=ci.environment, capture_output=True, check=True, timeout=60
        ).stdout
        state, document = json.loads(printed)
        self.assertEqual(("SUCCESS", "passed", fixed), (state, document["status"], document["commit"]))

    def test_every_commit_of_a_push_is_tested_once(self):
        ci = self.install()
        clone = ci.make_repository()
        commits = [ci.commit(clone, {"tests/test_a.py": PASSING, "n": str(n)}) for n in range(8)]
        ci.push(clone)
        ci.start_all(slots=2)
        for commit in commits:
            self.assertEqual(Status.PASSED, ci.report(commit).status)
            [run] = ci.runs(commit)
            self.assertEqual(1, len(list_attempts(ci.database, run.id)))

    def test_a_commit_whose_worker_is_killed_is_tested_again_by_another_as_soon_as_its_lease_ends(self):
        ci = self.install(f"lease_s = {LEASE_S}")
        clone = ci.make_repository()
        ci.start("dispatcher")
        workers = {
            name: ci.start("worker", "--concurrency=1", f"--hostname={name}@%h", log=name)
            for name in ("one", "two")
        }
        eventually(lambda: len(list_workers(ci.database)) == 2, f"both are there: {ci.logs()}")
        commit = ci.push_commit(clone, {"tests/test_a.py": SLOW})
        [run] = eventually(lambda: [run for run in ci.runs(commit) if run.tests_known], "the test runs")
        os.killpg(workers[run.worker.partition("@")[0]].pid, signal.SIGKILL)

        # From here on nobody does anything.
        eventually(
            lambda: ci.runs(commit)[0].attempt == 2,
            f"the other tests it: {ci.runs(commit)}",
            LEASE_S + MARGIN_S,
        )
        report = ci.report(commit)
        self.assertEqual(Status.PASSED, report.status)
        self.assertNotEqual(run.worker, report.worker)
        [run] = ci.runs(commit)
        self.assertEqual((State.FINISHED, 2), (run.state, run.attempt))
        first, second = list_attempts(ci.database, run.id)
        self.assertIn(f"silent for {LEASE_S:g} s", first.ending)
        self.assertEqual("reported", second.ending)


class TestEmbedded(Embedded, Walk, unittest.TestCase):
    pass


class TestRabbitmqPostgresql(RabbitmqPostgresql, Walk, unittest.TestCase):
    pass


class TestRedisPostgresql(RedisPostgresql, Walk, unittest.TestCase):
    pass


if __name__ == "__main__":
    unittest.main()
