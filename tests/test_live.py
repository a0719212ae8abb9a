"""Tests on a terminal while they run."""

from __future__ import annotations

import unittest

from ciapp.outlets.live import Live
from ciapp.results import report as reports
from ciapp.results.report import FixtureResult, Outcome, Subtest


def result(outcome: Outcome, message: str = "", **fields: object) -> reports.TestResult:
    return reports.TestResult(id="m.T.test_x", outcome=outcome, message=message, **fields)


FIXTURE = FixtureResult(phase="setUpClass", scope="m.T", message="ValueError: no")


class TestLetters(unittest.TestCase):
    def test_each_outcome_has_the_letter_of_the_report(self) -> None:
        live = Live()
        shown = "".join(live.show(result(outcome)) for outcome in Outcome) + live.show(FIXTURE)
        self.assertEqual(".FEsxuCTE-E", shown)
        self.assertEqual(("\n", ""), (live.end(), live.end()))

    def test_each_failed_subtest_has_a_letter(self) -> None:
        rows = tuple(
            Subtest(parameters=f"(i={number})", ordinal=number, outcome=Outcome.FAILED) for number in range(3)
        )
        self.assertEqual("FFF", Live().show(result(Outcome.FAILED, subtests=rows)))

    def test_a_full_line_ends_with_how_far_it_is(self) -> None:
        live = Live()
        live.count(200, 70)
        self.assertEqual(
            "." * 70 + "  70/200\n", "".join(live.show(result(Outcome.PASSED)) for _ in range(70))
        )
        self.assertEqual("", live.end())

    def test_colour_is_for_what_is_no_pass(self) -> None:
        live = Live(color=True)
        self.assertEqual(".", live.show(result(Outcome.PASSED)))
        self.assertEqual("\x1b[31mF\x1b[0m", live.show(result(Outcome.FAILED)))


class TestLines(unittest.TestCase):
    def test_a_line_says_the_name_the_outcome_and_why(self) -> None:
        live = Live(verbose=True)
        self.assertEqual("test_x (m.T.test_x) ... ok\n", live.show(result(Outcome.PASSED)))
        self.assertEqual(
            "test_x (m.T.test_x) ... skipped: later\n", live.show(result(Outcome.SKIPPED, "later"))
        )
        self.assertEqual("setUpClass (m.T) ... ERROR: ValueError: no\n", live.show(FIXTURE))
        self.assertEqual("", live.end())

    def test_nothing_of_a_test_acts_on_the_terminal(self) -> None:
        shown = Live(verbose=True).show(
            reports.TestResult(id="m.T.\x1b[2J\n", outcome=Outcome.FAILED, message="\x1b]0;owned\x07\nx")
        )
        self.assertEqual(r"\x1b[2J\n (m.T.\x1b[2J\n) ... FAIL: \x1b]0;owned\x07\nx" + "\n", shown)


if __name__ == "__main__":
    unittest.main()
