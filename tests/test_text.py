"""A report's text: unittest's own where unittest has words, our own in its manner where it has none."""

import textwrap
import unicodedata
import unittest
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from ciapp.outlets.text import render_report
from ciapp.results.report import Outcome, Status
from ciapp.results.report import TestResult as Result  # pytest collects what is called Test…
from tests.support.reports import fixture, report, result, subtest

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


def body(text: str) -> str:
    """What follows the header."""
    return text.partition("\n\n")[2]


class TestHeader(unittest.TestCase):
    def test_the_header_says_which_run_it_was(self):
        text = render_report(
            report(
                result("passed"),
                refs=("refs/heads/main", "refs/tags/v1"),
                author="Ann <ann@example.org>",
                python="3.11.7",
                sandbox="bubblewrap",
                attempt=2,
                finished_at=datetime(2024, 5, 1, 12, 0, 30, tzinfo=timezone(timedelta(hours=2))),
            )
        )

        self.assertEqual(
            textwrap.dedent(
                """\
                Commit:      d4e5f6a1b2c3 of team (main, refs/tags/v1)
                Subject:     Teach the adder to add
                Author:      Ann <ann@example.org>
                Environment: default, Python 3.11.7, sandbox: bubblewrap
                Attempt:     2, by worker-1
                Finished:    2024-05-01 10:00:30 UTC
                Status:      passed"""
            ),
            text.partition("\n\n")[0],
        )


class TestBeyondUnittest(unittest.TestCase):
    maxDiff = None

    def assert_body(self, expected: str, *tests: Result, **fields: object) -> None:
        text = body(render_report(report(*tests, **fields)))
        self.assertEqual(textwrap.dedent(expected).lstrip("\n"), text)

    def test_a_crash_and_a_timeout_have_letters_and_blocks_of_their_own(self):
        self.assert_body(
            """
            .CT--
            ======================================================================
            CRASHED: test_a (m.T.test_a)
            ----------------------------------------------------------------------
            SIGSEGV
            Current thread 0x01:

            ======================================================================
            TIMED OUT: test_b (m.T.test_b)
            ----------------------------------------------------------------------
            no end after 60 s

            Stderr:
            waiting

            ----------------------------------------------------------------------
            Ran 3 tests in 0.001s

            FAILED (crashed=1, timed out=1, not run=2)
            """,
            result("passed", "m.T.test_0"),
            result("crashed", "m.T.test_a", message="SIGSEGV", traceback="Current thread 0x01:\n"),
            result("timed-out", "m.T.test_b", message="no end after 60 s", stderr="waiting\n"),
            result("not-run", "m.T.test_c"),
            result("not-run", "m.T.test_d"),
        )

    def test_a_failed_fixture_stands_where_its_scope_begins_or_ends(self):
        text = render_report(
            report(
                result("passed", "m.A.test"),
                result("not-run", "m.B.test_1"),
                result("not-run", "m.B.test_2"),
                result("passed", "m.C.test_1"),
                result("skipped", "m.C.test_2"),
                result("passed", "m.CC.test"),
                fixtures=(fixture("tearDownClass", "m.C"), fixture("setUpClass", "m.B")),
            )
        )

        self.assertEqual(".E--.sE.", body(text).splitlines()[0])
        self.assertLess(text.index("ERROR: setUpClass (m.B)"), text.index("ERROR: tearDownClass (m.C)"))
        self.assertIn("FAILED (errors=2, skipped=1, not run=2)", text)

    def test_a_test_that_failed_besides_its_subtests_is_listed_with_them(self):
        failing = result(
            "errored",
            traceback="ZeroDivisionError\n",
            subtests=(subtest("failed", "(i=1)", traceback="AssertionError\n"), subtest("passed", "(i=2)")),
        )

        text = render_report(report(failing))

        self.assertEqual("FE", body(text).splitlines()[0])
        self.assertIn("FAIL: test_x (tests.test_app.TestApp.test_x) (i=1)\n", text)
        self.assertIn("ERROR: test_x (tests.test_app.TestApp.test_x)\n", text)
        self.assertIn("FAILED (failures=1, errors=1)", text)

    def test_a_crash_after_failed_subtests_is_not_hidden_by_them(self):
        crashed = result("crashed", subtests=(subtest("failed", "(i=1)"),))

        self.assertEqual("FC", body(render_report(report(crashed))).splitlines()[0])

    def test_output_of_a_test_with_failed_subtests_is_shown_once(self):
        noisy = result(
            "failed", stdout="noise", subtests=tuple(subtest("failed", f"(i={i})", i) for i in range(3))
        )

        self.assertEqual(1, render_report(report(noisy)).count("\nStdout:\nnoise\n"))

    def test_dots_are_wrapped_at_the_width_of_the_rules(self):
        tests = [result("passed", f"m.T.test_{i}") for i in range(150)]

        self.assertEqual(["." * 70, "." * 70, "." * 10], body(render_report(report(*tests))).splitlines()[:3])

    def test_every_status_says_its_reason(self):
        for status, verdict in {
            Status.FAILED: "FAILED: why",
            Status.SETUP_FAILED: "SETUP FAILED: why",
            Status.NO_TESTS: "NO TESTS RAN: why",
            Status.TIMED_OUT: "TIMED OUT: why",
            Status.INFRA_ERROR: "INFRA ERROR: says nothing about the commit; why",
            Status.CANCELLED: "CANCELLED: why",
        }.items():
            with self.subTest(status=status):
                text = render_report(report(status=status, reason="why"))
                self.assertEqual(verdict, text.splitlines()[-1])

    def test_an_infra_error_without_a_reason_still_says_what_it_means(self):
        text = render_report(report(status=Status.INFRA_ERROR))

        self.assertEqual("INFRA ERROR: says nothing about the commit", text.splitlines()[-1])

    def test_a_run_that_never_came_to_its_tests_does_not_say_it_ran_any(self):
        text = render_report(report(status=Status.SETUP_FAILED, reason="no such requirement"))

        self.assertNotIn("Ran ", text)

    def test_a_run_that_ended_early_says_how_many_tests_it_ran(self):
        text = render_report(report(result("passed"), status=Status.TIMED_OUT))

        self.assertIn("\nRan 1 test in 0.001s\n\nTIMED OUT\n", text)

    def test_warnings_come_last(self):
        text = render_report(report(result("passed"), warnings=("first", "second")))

        self.assertTrue(text.endswith("OK\n\nWarning: first\nWarning: second\n"), text)

    def test_the_end_of_what_was_written_outside_tests_is_shown_unless_the_run_passed(self):
        output = "".join(f"line {i}\n" for i in range(203))
        failed = render_report(report(result("failed"), output=output))
        passed = render_report(report(result("passed"), output=output))

        self.assertIn("OUTPUT outside any test (3 lines before are left out)\n", failed)
        self.assertNotIn("line 2\n", failed)
        self.assertIn("\nline 3\n", failed)
        self.assertIn("\nline 202\n", failed)
        self.assertNotIn("line 202", passed)

    def test_output_that_is_shown_whole_says_nothing_of_lines_left_out(self):
        text = render_report(report(result("failed"), output="line\n" * 200))

        self.assertIn("\nOUTPUT outside any test\n", text)

    def test_every_outcome_has_a_letter_and_every_bad_one_a_tally(self):
        for outcome in Outcome:
            with self.subTest(outcome=outcome):
                text = body(render_report(report(result(outcome))))
                self.assertEqual(1, len(text.splitlines()[0]))
                self.assertEqual(outcome is not Outcome.PASSED, "=1)" in text)

    def test_a_very_long_name_is_shortened(self):
        text = render_report(report(result("failed", "m.T.test_" + "x" * 5000)))

        self.assertLess(max(map(len, text.splitlines())), 500)


class TestHostileReports(unittest.TestCase):
    @given(ANY_TEXT, st.sampled_from(Outcome), st.sampled_from(Status))
    def test_nothing_of_a_commit_acts_in_the_terminal(self, hostile, outcome, status):
        child = subtest(outcome, hostile, message=hostile, traceback=hostile)
        row = {"message": hostile, "traceback": hostile, "stdout": hostile, "stderr": hostile}
        text = render_report(
            report(
                result(outcome, hostile, **row, subtests=(child,)),
                fixtures=(fixture("setUpClass", hostile, **row),),
                status=status,
                repo=hostile,
                commit=hostile,
                refs=(hostile,),
                author=hostile,
                subject=hostile,
                environment=hostile,
                worker=hostile,
                reason=hostile,
                warnings=(hostile,),
                output=hostile,
                python=hostile,
                sandbox=hostile,
            )
        )

        left = {character for character in text if unicodedata.category(character) in {"Cc", "Cs"}}
        self.assertLessEqual(left, {"\n", "\t"})

    def test_what_is_one_line_cannot_add_lines_of_its_own(self):
        text = render_report(
            report(
                result("failed", "m.T.test_x\nOK"),
                subject="Fix\nStatus:      passed",
                reason="a\nOK",
                warnings=("w\nOK",),
            )
        )

        self.assertIn("Subject:     Fix\\nStatus:      passed\n", text)
        self.assertNotIn("\nOK", text)
        self.assertTrue(text.endswith("FAILED (failures=1): a\\nOK\n\nWarning: w\\nOK\n"), text)
