"""Tests that forge events about themselves: what cannot come of it, and what nothing can hold.

What runs in one process with the child can do all that the child can: such a lie is not held by a sandbox but
by what the parent can compare it with. Each forgery is shown to reach the parent first.
"""

from __future__ import annotations

import unittest
from pathlib import Path

from ciapp.results.report import Findings, Status
from ciapp.settings import Limits
from tests.support.samples import SAMPLES, run_project
from tests.support.sandboxes import PYTHON, WEAK, Place

FILE = Path("hostile_forges_events", "tests", "test_forged.py")
TESTS = ("test_forged.TestForged.test_1", "test_forged.TestForged.test_2")
MISSING = r"^\d+ events? of the tests went missing, so what they did is not known$"
TWICE = r"^\d+ events? of the tests came twice or after the end, so somebody else spoke for them$"


class TestForgedEvents(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = Place(cls, "auto")
        text = (SAMPLES / FILE).read_text("utf-8")
        cls.sandbox = cls.place.open(cls.place.commit({"tests/test_forged.py": text}))

    place: Place

    def run_forging(self, how: str) -> Findings:
        return run_project(
            self.sandbox.checkout,
            PYTHON.python,
            sandbox=self.sandbox,
            readable=PYTHON.readable,
            environment={"FORGE": how},
            limits=Limits(test_s=10, run_s=30),
            known_tests=tuple((name, 0) for name in TESTS),
        )

    def outcomes(self, findings: Findings) -> list[str]:
        return [test.outcome.value for test in findings.tests]

    def test_without_a_forgery_both_tests_fail(self) -> None:
        findings = self.run_forging("")
        self.assertEqual((Status.FAILED, ["failed"] * 2), (findings.status, self.outcomes(findings)))

    def test_a_second_stop_does_not_pass(self) -> None:
        for how in ("a second stop", "all that is left, at once", "every line again and again"):
            with self.subTest(how):
                findings = self.run_forging(how)
                self.assertIn("passed", self.outcomes(findings), "the forgery was heard")
                self.assertEqual(Status.FAILED, findings.status)
                # A flood may swallow lines of the child's, which is then all that is sure.
                is_flood = how == "every line again and again"
                self.assertRegex(findings.reason, f"{TWICE}|{MISSING}" if is_flood else TWICE)

    def test_a_stop_in_place_of_the_true_one_does_not_pass(self) -> None:
        findings = self.run_forging("a stop in place of the true one")
        self.assertEqual(["passed", "failed"], self.outcomes(findings), "the forgery was heard")
        self.assertEqual(Status.FAILED, findings.status)
        self.assertIn("went missing", findings.reason)

    def test_an_end_before_the_last_test_does_not_pass(self) -> None:
        findings = self.run_forging("an end")
        self.assertEqual((Status.FAILED, 1), (findings.status, findings.children))
        self.assertEqual(["crashed", "not-run"], self.outcomes(findings))

    def test_an_end_before_the_first_test_does_not_pass(self) -> None:
        findings = self.run_forging("an end when it is imported")
        self.assertEqual(Status.FAILED, findings.status)
        self.assertEqual(["not-run", "not-run"], self.outcomes(findings))

    def test_lines_of_another_process_are_refused_and_told(self) -> None:
        findings = self.run_forging("lines of another process")
        self.assertEqual((Status.FAILED, ["failed"] * 2), (findings.status, self.outcomes(findings)))
        said = findings.tests[0].stdout
        if "may not open" in said:  # the pipe is root's
            self.assertNotIn("wrote to", said)
        else:
            self.assertIn("wrote to", said, "the forgery was sent")
            self.assertRegex("; ".join(findings.warnings), "1 line on the event channel refused")

    def test_the_secret_of_the_channel_does_not_lie_about(self) -> None:
        findings = self.run_forging("by a secret that it finds")
        self.assertEqual("found []\n", findings.tests[0].stdout)

    def test_an_exit_status_that_says_otherwise_does_not_pass(self) -> None:
        findings = self.run_forging("a unittest without failures")
        self.assertEqual(["passed", "passed"], self.outcomes(findings), "this cannot be told from the truth")
        findings = self.run_forging("a result without a verdict")
        self.assertEqual((Status.FAILED, ["errored"] * 2), (findings.status, self.outcomes(findings)))

    def test_silence_does_not_pass(self) -> None:
        self.assertEqual(Status.FAILED, self.run_forging("silence").status)

    def test_what_lies_from_beginning_to_end_passes_with_the_tests_that_vanished_named(self) -> None:
        # The one who writes the tests says what they test: README says so.
        findings = self.run_forging("a whole run when it is imported")
        self.assertEqual(Status.PASSED, findings.status)
        self.assertEqual((f"2 tests of the parent commit not found: {', '.join(TESTS)}",), findings.warnings)


class TestWeakLevel(TestForgedEvents):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = Place(cls, WEAK)
        text = (SAMPLES / FILE).read_text("utf-8")
        cls.sandbox = cls.place.open(cls.place.commit({"tests/test_forged.py": text}))
