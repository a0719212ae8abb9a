"""What a commit's runs come to, and how that is said: one line, one verdict, whatever the number of runs."""

from __future__ import annotations

import itertools
import json
import threading
import time
import unittest
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import msgspec

from ciapp.errors import NoSuchRunError
from ciapp.progress import Waits, progress_of_all, runs_line
from ciapp.results.overall import MOST_TELLING_FIRST, overall
from ciapp.results.report import Findings, Outcome, State, Status
from ciapp.results.report import TestResult as Result
from ciapp.results.runs import Run, beat_run, claim_run, find_runs
from ciapp.results.store import make_report, save_report
from tests.test_cli import GREEN, RED, Pushed

RUN = Run(
    id=1,
    repo="team",
    host="here",
    git_dir="/srv/team.git",
    commit="d4e5f6a1b2c3" + "0" * 28,
    tree="7" * 40,
    parents=(),
    refs=(),
    author="Ann",
    subject="Add",
    environment="default",
    ref="refs/heads/main",
    priority=1,
    state=State.QUEUED,
    status=None,
    reason="",
    attempt=1,
    tries=1,
    worker="",
    beat=0,
    queued_at=datetime(2026, 1, 1, tzinfo=UTC),
    sent_token=0,
    sends=0,
    sent_at=None,
    started_at=None,
    finished_at=None,
    duration_s=None,
    counts={},
    tests_known=0,
    tests_done=0,
    tests_failed=0,
    is_fresh=False,
    reused_from="",
)


def run(environment: str = "default", status: Status | None = None, **fields: Any) -> Run:
    state = State.FINISHED if status else State.QUEUED
    return msgspec.structs.replace(
        RUN, **{"environment": environment, "state": state, "status": status, **fields}
    )


class TestVerdict(unittest.TestCase):
    def test_a_commit_has_passed_when_all_its_runs_have(self):
        self.assertIs(Status.PASSED, overall([run(status=Status.PASSED)] * 3).status)
        for status in Status:
            if status is not Status.PASSED:
                for runs in itertools.permutations([run(status=Status.PASSED), run(status=status)]):
                    self.assertIs(status, overall(runs).status)

    def test_every_status_has_its_place(self):
        self.assertEqual(set(Status), set(MOST_TELLING_FIRST))

    def test_a_failure_is_certain_though_another_run_says_nothing(self):
        for status in (Status.INFRA_ERROR, Status.CANCELLED):
            found = overall([run(status=status), run(status=Status.FAILED)])
            self.assertEqual((Status.FAILED, 1), (found.status, found.status.exit_code))
        found = overall([run(status=Status.PASSED), run(status=Status.INFRA_ERROR)])
        self.assertEqual(3, found.status.exit_code)

    def test_there_is_no_status_until_all_have_finished(self):
        found = overall([run(status=Status.FAILED), run()])
        self.assertEqual((State.RUNNING, None), (found.state, found.status))
        self.assertIs(State.QUEUED, overall([run(), run()]).state)

    def test_tests_add_up_and_durations_do_not(self):
        found = overall(
            [
                run(status=Status.FAILED, counts={"skipped": 1, "passed": 2}, duration_s=2.0, tests_known=3),
                run(status=Status.PASSED, counts={"failed": 1, "passed": 2}, duration_s=1.0, tests_known=3),
            ]
        )
        self.assertEqual({"passed": 4, "failed": 1, "skipped": 1}, found.counts)
        self.assertEqual((2.0, 6), (found.duration_s, found.tests_known))


class TestLine(unittest.TestCase):
    def test_one_run_is_said_as_ever(self):
        self.assertEqual("queued", runs_line([run()]).note)
        self.assertEqual("python3.13, queued", runs_line([run("python3.13")]).note)
        self.assertEqual("python3.13", runs_line([run("python3.13", Status.PASSED)]).note)
        again = {"status": Status.PASSED, "attempt": 2}
        self.assertEqual("", runs_line([run(**again, tries=1)]).note)  # somebody asked for it
        self.assertEqual("attempt 2", runs_line([run(**again, tries=2)]).note)

    def test_several_are_said_by_what_became_of_them(self):
        passed = [run("python3.10", Status.PASSED), run("python3.11", Status.PASSED)]
        line = runs_line(passed)
        self.assertEqual((Status.PASSED, "3.10, 3.11"), (line.status, line.note))
        line = runs_line([*passed, run("python3.13", Status.FAILED)])
        self.assertEqual((Status.FAILED, "3.10, 3.11 passed; 3.13 failed"), (line.status, line.note))

    def test_a_result_that_was_reused_is_said_of_each(self):
        reused = run("python3.10", Status.PASSED, reused_from="ab" * 20)
        self.assertEqual("python3.10, reused from abababababab", runs_line([reused]).note)
        line = runs_line([reused, run("python3.11", Status.PASSED)])
        self.assertEqual("3.10 passed (reused from abababababab); 3.11 passed", line.note)

    def test_unfinished_ones_say_where_they_are_and_for_what_they_wait(self):
        runs = [
            run("python3.10", Status.PASSED),
            run("python3.11", state=State.RUNNING, tests_known=40, tests_done=3),
            run("python3.13"),
            run("python3.99"),
        ]
        waits = Waits(unserved=frozenset({"python3.99"}))
        self.assertEqual(
            "3.10 passed; 3.11 running 3/40; 3.13 queued; 3.99 waits for a worker with Python 3.99",
            progress_of_all(runs, waits),
        )
        self.assertIsNone(runs_line(runs, waits).status)


class TestCommands(Pushed):
    """A commit with runs under 3.10 and 3.13, of which workers have the first alone."""

    def setUp(self) -> None:
        super().setUp()
        self.add_worker("default", "python3.10")
        self.commit = self.tree.commit("Two", {".ciapp.toml": 'python = ["3.10", "3.13"]'})
        self.short = self.commit[:12]
        self.tree.push("main")
        self.dispatcher.step()

    def start_in(self, environment: str) -> Run:
        [run] = [
            one for one in find_runs(self.database, "team", [self.commit]) if one.environment == environment
        ]
        claimed = claim_run(self.database, run.id, attempt=run.attempt + 1, worker="celery@here#0")
        assert claimed is not None
        return claimed

    def finish_in(self, environment: str, *tests: Result) -> None:
        run = self.start_in(environment)
        good = all(test.outcome is Outcome.PASSED for test in tests)
        found = Findings(status=Status.PASSED if good else Status.FAILED, tests=tests, duration_s=1.25)
        save_report(self.database, run.id, make_report(run, found, finished_at=datetime.now(UTC)))

    def test_log_has_one_line_a_commit_which_says_for_what_it_waits(self) -> None:
        first, *_ = self.call("log", "team")[1].splitlines()
        self.assertIn("3.10 queued; 3.13 waits for a worker with Python 3.13", first)
        self.finish_in("python3.10", GREEN)
        self.finish_in("python3.13", GREEN, RED)
        lines = self.call("log", "team")[1].splitlines()
        self.assertEqual(2, len(lines))
        self.assertRegex(
            lines[0], rf"^{self.short}  failed    2 passed, 1 failed +1\.2s  \[3\.10 passed; 3\.13 failed\]"
        )

    def test_log_document_has_the_commits_status_beside_its_runs(self) -> None:
        self.finish_in("python3.10", RED)
        [now, _] = json.loads(self.call("log", "team", "--json")[1])["commits"]
        self.assertEqual(("running", None), (now["state"], now["status"]))
        self.finish_in("python3.13", GREEN)
        [now, _] = json.loads(self.call("log", "team", "--json")[1])["commits"]
        self.assertEqual(("finished", "failed"), (now["state"], now["status"]))
        statuses = {run["environment"]: run["status"] for run in now["runs"]}
        self.assertEqual({"python3.10": "failed", "python3.13": "passed"}, statuses)

    def test_report_prints_each_run_or_the_one_that_is_asked_for(self) -> None:
        self.finish_in("python3.10", GREEN)
        self.finish_in("python3.13", RED)
        code, out, _ = self.call("report", "team")
        self.assertEqual((1, 2), (code, out.count("Commit:")))
        self.assertIn("Environment: python3.10", out)
        for words in (("--python", "3.10"), ("--environment", "python3.10")):
            code, out, _ = self.call("report", "team", *words)
            self.assertEqual((0, 1), (code, out.count("Commit:")))
        sentence = (
            f"commit {self.short} has no run in environment 'python3.12'; it has python3.10, python3.13"
        )
        self.refused(4, sentence, "report", "team", "--python", "3.12")
        self.assertEqual(2, self.call("report", "team", "--python", "3")[0])

    def test_report_prints_what_there_is_and_says_what_is_missing(self) -> None:
        self.finish_in("python3.10", GREEN)
        progress = "3.10 passed; 3.13 waits for a worker with Python 3.13"
        sentence = f"commit {self.short} of team has not finished: {progress}; see `ciapp wait team HEAD`"
        code, out, err = self.call("report", "team")
        self.assertEqual((4, f"ciapp: {sentence}\n"), (code, err))
        self.assertEqual(1, out.count("Commit:"))
        self.refused(4, sentence, "report", "team", "--json")
        self.refused(4, sentence, "report", "team", "--junit", str(self.folder / "junit.xml"))
        self.assertFalse((self.folder / "junit.xml").exists())

    def test_the_document_of_several_runs_holds_the_report_of_each(self) -> None:
        self.finish_in("python3.10", GREEN)
        self.finish_in("python3.13", RED)
        code, out, _ = self.call("report", "team", "--json")
        document = json.loads(out)
        facts = {name: document[name] for name in ("schema", "repo", "commit", "state", "status")}
        self.assertEqual((1, 5 + 1), (code, len(document)))
        self.assertEqual([1, "team", self.commit, "finished", "failed"], list(facts.values()))
        self.assertEqual(["passed", "failed"], [report["status"] for report in document["runs"]])
        [alone] = [json.loads(self.call("report", "team", "--json", "--python", "3.13")[1])]
        self.assertEqual(document["runs"][1], alone)

    def test_junit_has_a_testsuite_for_each(self) -> None:
        self.finish_in("python3.10", GREEN)
        self.finish_in("python3.13", GREEN, RED)
        file = self.folder / "junit.xml"
        self.assertEqual((1, "", ""), self.call("report", "team", "--junit", str(file)))
        document = ElementTree.parse(file).getroot()
        suites = {suite.get("name"): suite.get("tests") for suite in document}
        self.assertEqual({"team python3.10": "1", "team python3.13": "2"}, suites)
        self.assertEqual(("3", "2.5"), (document.get("tests"), document.get("time")))

    def test_wait_waits_for_all_and_exits_with_the_verdict_of_all(self) -> None:
        self.finish_in("python3.10", GREEN)
        code, out, err = self.call("wait", "team", "--timeout", "0.2")
        self.assertEqual((4, ""), (code, out))
        self.assertIn("has not finished in time: 3.10 passed; 3.13 waits for a worker with Python 3.13", err)

        def end() -> None:
            time.sleep(0.3)
            self.finish_in("python3.13", RED)

        thread = threading.Thread(target=end)
        thread.start()
        code, out, _ = self.call("wait", "team")
        thread.join()
        self.assertEqual(1, code)
        self.assertIn("[3.10 passed; 3.13 failed] Two", out)

    def test_the_bar_of_wait_adds_up_all_runs(self) -> None:
        shown: list[str] = []
        run = self.start_in("python3.10")
        beat_run(self.database, run.id, attempt=1, known=40, done=10, failed=3)

        def see(text: str) -> str:
            shown.append(text)
            raise NoSuchRunError("that is enough")

        with mock.patch("ciapp.progress.escape_line", side_effect=see):
            self.call("wait", "team")
        self.assertEqual(
            ["running 10/40, 3 failed, 0 of 2 runs finished, waits for a worker with Python 3.13"], shown
        )

    def test_status_says_what_no_worker_has(self) -> None:
        out = self.call("status")[1]
        self.assertIn("queue: 1 of them for Python 3.13, which no worker has", out)
        self.assertIn("Python 3.11.7 (and, for commits that name one, 3.10), sandbox", out)
        document = json.loads(self.call("status", "--json")[1])
        self.assertEqual({"python3.13": 1}, document["queue"]["unserved"])
        self.assertEqual(["default", "python3.10"], document["workers"][0]["environments"])

    def test_doctor_says_what_no_worker_has_and_where_to_install_it(self) -> None:
        out = self.call("doctor")[1]
        self.assertRegex(
            out, r"warn +workers +1 run waits for Python 3\.13, which no worker has\n +→ install it"
        )
        self.assertRegex(out, r"ok +pythons +of this host, for commits that name one: .*3\.\d+\.\d+")

    def test_cancel_and_rerun_take_all_runs_or_one(self) -> None:
        def states() -> list[str]:
            runs = find_runs(self.database, "team", [self.commit])
            return [run.status.value if run.status else run.state.value for run in runs]

        self.call("cancel", "team", "--python", "3.13")
        self.assertEqual(["queued", "cancelled"], states())
        self.call("cancel", "team")
        self.assertEqual(["cancelled", "cancelled"], states())
        self.call("rerun", "team", "--python", "3.10")
        self.assertEqual(["queued", "cancelled"], states())
        self.call("rerun", "team")
        self.assertEqual(["queued", "queued"], states())
        self.assertIn("waiting or running already", self.call("rerun", "team")[1])
        self.call("rerun", "team", "--python", "3.12")
        self.assertEqual(["queued", "queued", "queued"], states())


if __name__ == "__main__":
    unittest.main()
