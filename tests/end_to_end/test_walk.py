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

    def test_a_commit_whose_worker_is_killed_is_tested_again_and_has_one_report(self):
        ci = self.install("lease_s = 4")
        clone = ci.make_repository()
        ci.start("dispatcher")
        worker = ci.start("worker", "--concurrency=1")
        commit = ci.push_commit(clone, {"tests/test_a.py": SLOW})
        eventually(lambda: [run for run in ci.runs(commit) if run.tests_known], "the test runs")
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        ci.start("worker", "--concurrency=1", log="second")

        self.assertEqual(Status.PASSED, ci.report(commit).status)
        [run] = ci.runs(commit)
        self.assertEqual((State.FINISHED, 2), (run.state, run.attempt))
        first, second = list_attempts(ci.database, run.id)
        self.assertIn("silent for 4 s", first.ending)
        self.assertEqual("reported", second.ending)


class TestEmbedded(Embedded, Walk, unittest.TestCase):
    pass


class TestRabbitmqPostgresql(RabbitmqPostgresql, Walk, unittest.TestCase):
    pass


class TestRedisPostgresql(RedisPostgresql, Walk, unittest.TestCase):
    pass


if __name__ == "__main__":
    unittest.main()
