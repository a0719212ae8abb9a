"""Reports as JUnit XML: valid by the schema, the report's own numbers, and never greener than the run."""

import unicodedata
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from ciapp.outlets.junit import to_junit
from ciapp.results.report import Outcome, Report, Status
from tests.support.reports import fixture, report, result, subtest

SCHEMA = xmlschema.XMLSchema(Path(__file__).parent / "support/junit.xsd")
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
RESULTS = ("failure", "error", "skipped")


class TestJunit(unittest.TestCase):
    def suite_of(self, found: Report) -> Any:
        """The document's one testsuite, after the document was found valid."""
        document = ElementTree.fromstring(to_junit(found))
        SCHEMA.validate(document)
        (suite,) = document
        return suite

    def only_case(self, found: Report) -> Any:
        (case,) = self.suite_of(found).iter("testcase")
        return case

    def only_result(self, found: Report) -> Any:
        (element,) = (child for child in self.only_case(found) if child.tag in RESULTS)
        return element


class TestCases(TestJunit):
    def test_a_passed_test_is_a_testcase_and_nothing_else(self):
        case = self.only_case(report(result("passed", "tests.test_app.TestApp.test_x", duration_s=0.25)))

        self.assertEqual(
            {"classname": "tests.test_app.TestApp", "name": "test_x", "time": "0.25"}, case.attrib
        )
        self.assertEqual([], list(case))

    def test_each_outcome_has_the_element_that_its_meaning_asks_for_and_its_name_as_type(self):
        for outcome, tag in {
            Outcome.FAILED: "failure",
            Outcome.UNEXPECTED_SUCCESS: "failure",
            Outcome.ERRORED: "error",
            Outcome.CRASHED: "error",
            Outcome.TIMED_OUT: "error",
            Outcome.LOAD_ERROR: "error",
            Outcome.SKIPPED: "skipped",
            Outcome.EXPECTED_FAILURE: "skipped",
            Outcome.NOT_RUN: "skipped",
        }.items():
            with self.subTest(outcome=outcome):
                row = result(outcome, message="said why", traceback="Traceback:\n  line\n")
                if outcome is Outcome.NOT_RUN:
                    element = self.suite_of(report(row)).find("testcase")[0]
                else:
                    element = self.only_result(report(row))
                self.assertEqual(tag, element.tag)
                self.assertEqual({"type": outcome.value, "message": "said why"}, element.attrib)
                self.assertEqual("Traceback:\n  line\n", element.text)

    def test_a_test_that_never_ended_has_no_time(self):
        self.assertNotIn("time", self.only_case(report(result("crashed", duration_s=None))).attrib)

    def test_a_test_that_never_started_says_so(self):
        suite = self.suite_of(report(result("passed", "m.T.a"), result("not-run", "m.T.b")))

        self.assertEqual("never started", suite.find("testcase/skipped").get("message"))

    def test_very_short_times_are_written_without_an_exponent(self):
        self.assertEqual("0.0", self.only_case(report(result("passed", duration_s=1e-7))).get("time"))
        self.assertEqual("0.0001", self.only_case(report(result("passed", duration_s=1.2e-4))).get("time"))

    def test_what_a_test_wrote_stands_after_its_result(self):
        case = self.only_case(report(result("failed", stdout="out\n", stderr="err\n")))

        self.assertEqual(["failure", "system-out", "system-err"], [child.tag for child in case])
        self.assertEqual(["out\n", "err\n"], [child.text for child in case][1:])

    def test_tests_of_one_id_are_told_apart(self):
        suite = self.suite_of(report(*(result("passed", "m.T.test_x", ordinal=i) for i in range(3))))

        self.assertEqual(
            ["test_x", "test_x #2", "test_x #3"], [case.get("name") for case in suite.iter("testcase")]
        )

    def test_an_id_without_a_dot_has_no_class(self):
        case = self.only_case(report(result("passed", "alone")))

        self.assertEqual("alone", case.get("name"))
        self.assertNotIn("classname", case.attrib)

    def test_failed_subtests_are_told_in_the_one_result_of_their_test(self):
        failing = result(
            "failed",
            subtests=(
                subtest("failed", "(i=1)", traceback="Traceback one\n"),
                subtest("passed", "(i=2)"),
                subtest("errored", "(i='\n')", message="ValueError"),
            ),
        )

        self.assertEqual(
            "failed: (i=1)\nTraceback one\n\nerrored: (i='\\n')\nValueError",
            self.only_result(report(failing)).text,
        )

    def test_a_failed_fixture_is_an_error_in_its_scope(self):
        suite = self.suite_of(
            report(
                result("not-run", "m.T.test_x"),
                fixtures=(fixture("setUpClass", "m.T", message="OSError: x", traceback="Traceback\n"),),
            )
        )
        case = suite.findall("testcase")[1]

        self.assertEqual({"classname": "m.T", "name": "setUpClass"}, case.attrib)
        self.assertEqual({"type": "errored", "message": "OSError: x"}, case.find("error").attrib)


class TestSuites(TestJunit):
    def test_the_suite_counts_what_the_report_counts(self):
        suite = self.suite_of(report(*(result(outcome, f"m.T.{outcome.name}") for outcome in Outcome)))

        numbers = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
        self.assertEqual({"tests": 10, "failures": 2, "errors": 4, "skipped": 3}, numbers)

    def test_the_suite_says_which_run_it_was(self):
        suite = self.suite_of(
            report(
                result("passed"),
                refs=("refs/heads/main", "refs/tags/v1"),
                python="3.11.7",
                attempt=2,
                warnings=("one", "two"),
                started_at=datetime(2024, 5, 1, 12, 0, 30, tzinfo=timezone(timedelta(hours=2))),
                duration_s=3.25,
            )
        )

        self.assertEqual("team", suite.get("name"))
        self.assertEqual("worker-1", suite.get("hostname"))
        self.assertEqual("2024-05-01T10:00:30", suite.get("timestamp"))
        self.assertEqual("3.25", suite.get("time"))
        self.assertEqual(
            [
                ("repo", "team"),
                ("commit", "d4e5f6a1b2c3" + "0" * 28),
                ("tree", "7" * 40),
                ("refs", "refs/heads/main refs/tags/v1"),
                ("subject", "Teach the adder to add"),
                ("environment", "default"),
                ("attempt", "2"),
                ("worker", "worker-1"),
                ("status", "passed"),
                ("python", "3.11.7"),
                ("warning", "one"),
                ("warning", "two"),
            ],
            [(one.get("name"), one.get("value")) for one in suite.iter("property")],
        )

    def test_what_was_written_outside_tests_is_the_suites(self):
        suite = self.suite_of(report(result("passed"), output="installed\n"))

        self.assertEqual("installed\n", suite.find("system-out").text)

    def test_a_run_that_did_not_pass_is_never_green(self):
        for status in set(Status) - {Status.PASSED}:
            with self.subTest(status=status):
                case = self.suite_of(report(result("passed"), status=status, reason="why")).findall(
                    "testcase"
                )[1]
                self.assertEqual({"classname": "ciapp", "name": status.value}, case.attrib)
                self.assertEqual({"type": status.value, "message": "why"}, case.find("error").attrib)

    def test_a_run_whose_tests_failed_needs_no_further_testcase(self):
        self.assertEqual("test_x", self.only_case(report(result("failed"))).get("name"))

    def test_a_run_that_ended_early_says_so_besides_its_failed_tests(self):
        suite = self.suite_of(report(result("failed"), status=Status.TIMED_OUT, reason="1800 s"))

        self.assertEqual("2", suite.get("tests"))
        self.assertEqual("timed-out", suite.findall("testcase")[1].get("name"))


class TestHostileText(TestJunit):
    @given(ANY_TEXT, st.sampled_from(Outcome), st.sampled_from(Status))
    def test_no_text_of_a_commit_makes_the_document_invalid(self, hostile, outcome, status):
        row = {"message": hostile, "traceback": hostile, "stdout": hostile, "stderr": hostile}
        suite = self.suite_of(
            report(
                result(outcome, hostile, **row, subtests=(subtest(outcome, hostile, traceback=hostile),)),
                fixtures=(fixture("setUpClass", hostile, **row),),
                status=status,
                repo=hostile,
                refs=(hostile,),
                author=hostile,
                subject=hostile,
                worker=hostile,
                reason=hostile,
                warnings=(hostile,),
                output=hostile,
            )
        )

        texts = [*suite.itertext(), *(value for element in suite.iter() for value in element.attrib.values())]
        left = {character for text in texts for character in text if unicodedata.category(character) == "Cc"}
        self.assertLessEqual(left, {"\n", "\t"})

    def test_what_xml_cannot_hold_is_written_out(self):
        case = self.only_case(
            report(result("failed", "m.T.test_\x00", stdout="\x1b[31m \ufffe \udcff\r\n]]>"))
        )

        self.assertEqual(r"test_\x00", case.get("name"))
        self.assertEqual("\\x1b[31m \\ufffe \\udcff\\r\n]]>", case.find("system-out").text)


class TestSchema(unittest.TestCase):
    def test_the_schema_refuses_what_readers_of_junit_do_not_take(self):
        numbers = 'name="s" tests="1" failures="0" errors="0"'
        for name, body in {
            "a testsuite without numbers": '<testsuite name="s"/>',
            "a testcase without a name": f"<testsuite {numbers}><testcase/></testsuite>",
            "an unknown element": f'<testsuite {numbers}><testcase name="t"><flaky/></testcase></testsuite>',
            "an unknown attribute": f'<testsuite {numbers}><testcase name="t" status="run"/></testsuite>',
            "a time with an exponent": f'<testsuite {numbers}><testcase name="t" time="1e-05"/></testsuite>',
            "skipped in testsuites": None,
        }.items():
            with self.subTest(name):
                text = f"<testsuites>{body}</testsuites>" if body else '<testsuites skipped="0"/>'
                self.assertFalse(SCHEMA.is_valid(ElementTree.fromstring(text)))
