"""A report reads as unittest itself prints the same tests, word for word but for the durations."""

import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import msgspec

from ciapp.outlets.text import render_report
from ciapp.results.report import Report, Subtest
from ciapp.results.report import TestResult as Result  # pytest collects what is called Test…
from tests.support.reports import fixture, report, result, subtest

PLAIN_OUTCOMES = """
import sys
import unittest

class TestOutcomes(unittest.TestCase):
    def test_passes(self):
        pass
    def test_fails(self):
        print("printed by a failing test")
        self.assertEqual([1, 2], [1, 3])
    def test_errs(self):
        sys.stdout.write("no newline at its end")
        {}["missing"]
    def test_skips(self):
        self.skipTest("not today")
    @unittest.expectedFailure
    def test_fails_as_expected(self):
        self.fail()
    @unittest.expectedFailure
    def test_passes_unexpectedly(self):
        pass
    def test_subtests(self):
        for i in range(5):
            with self.subTest("odd one", i=i):
                if i == 1:
                    self.skipTest("one")
                if i == 3:
                    self.fail("three")
                if i == 4:
                    raise ValueError("four")

class TestTearDownClass(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        raise OSError("still there")
    def test_1(self):
        pass
    def test_2(self):
        pass

class TestZSetUpClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("not there")
    def test_1(self):
        pass
"""

# Runs the suite as `unittest -b` does, and tells of each callback as it comes.
RECORDER = """
import json, sys, unittest

events = []

class Recorder(unittest.TestResult):
    def tell(self, outcome, test, error=None, message=""):
        events.append({
            "kind": type(test).__name__, "outcome": outcome, "message": message,
            "id": (getattr(test, "test_case", None) or test).id(),
            "parameters": test._subDescription() if hasattr(test, "_subDescription") else "",
            "traceback": self._exc_info_to_string(error, test) if error else "",
        })
    def addSuccess(self, test): self.tell("passed", test)
    def addFailure(self, test, error): self.tell("failed", test, error)
    def addError(self, test, error): self.tell("errored", test, error)
    def addSkip(self, test, reason): self.tell("skipped", test, message=reason)
    def addExpectedFailure(self, test, error): self.tell("expected-failure", test, error)
    def addUnexpectedSuccess(self, test): self.tell("unexpected-success", test)
    def addSubTest(self, test, subtest, error):
        if error:
            failed = issubclass(error[0], test.failureException)
            self.tell("failed" if failed else "errored", subtest, error)

recorder = Recorder()
recorder.buffer = True
unittest.defaultTestLoader.discover("tests", top_level_dir=".")(recorder)
json.dump(events, sys.__stdout__)
"""


def report_of(events: list[dict[str, str]]) -> Report:
    """A report with a row for each test that unittest told of."""
    rows: dict[str, Result] = {}
    subtests: dict[str, list[Subtest]] = {}
    fixtures = []
    for event in events:
        traceback, _, stdout = event["traceback"].partition("\nStdout:\n")
        fields = {"traceback": traceback, "stdout": stdout, "message": event["message"]}
        if event["kind"] == "_SubTest":
            subtests.setdefault(event["id"], []).append(
                subtest(event["outcome"], event["parameters"], traceback=traceback)
            )
            rows[event["id"]] = result(event["outcome"], event["id"])
        elif event["kind"] == "_ErrorHolder":
            phase, scope = event["id"].rstrip(")").split(" (")
            fixtures.append(fixture(phase, scope, traceback=traceback))
        elif event["kind"] == "_FailedTest":
            module = event["id"].removeprefix("unittest.loader._FailedTest.")
            rows[event["id"]] = result("load-error", module, traceback=traceback)
        else:
            rows[event["id"]] = result(event["outcome"], event["id"], **fields)
    tests = [
        msgspec.structs.replace(row, subtests=tuple(subtests.get(test_id, ())))
        for test_id, row in rows.items()
    ]
    return report(*tests, fixtures=tuple(fixtures))


def without_durations(text: str) -> str:
    return re.sub(r"in \d+\.\d{3}s", "in 0.000s", text)


def body(text: str) -> str:
    """What follows the header."""
    return text.partition("\n\n")[2]


class TestLikeUnittest(unittest.TestCase):
    maxDiff = None

    def run_in_project(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.project, capture_output=True, text=True, timeout=60
        )

    def setUp(self) -> None:
        self.project = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.project / "tests").mkdir()
        (self.project / "tests/__init__.py").touch()

    def assert_reads_like_unittest(self) -> None:
        recorded = self.run_in_project("-c", RECORDER)
        self.assertEqual("", recorded.stderr)
        unittest_says = self.run_in_project("-m", "unittest", "discover", "-b", "-s", "tests", "-t", ".")

        text = body(render_report(report_of(json.loads(recorded.stdout))))

        self.assertEqual(without_durations(unittest_says.stderr), without_durations(text))

    def test_every_plain_outcome_reads_as_unittest_prints_it(self):
        (self.project / "tests/test_outcomes.py").write_text(PLAIN_OUTCOMES)

        self.assert_reads_like_unittest()

    def test_a_module_that_cannot_be_imported_reads_as_unittest_prints_it(self):
        (self.project / "tests/test_broken.py").write_text("import no_such_module\n")

        self.assert_reads_like_unittest()

    def test_a_passing_run_reads_as_unittest_prints_it(self):
        (self.project / "tests/test_one.py").write_text(
            "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.skipTest('')\n"
        )

        self.assert_reads_like_unittest()
