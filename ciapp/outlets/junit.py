"""A report as JUnit XML, in the flavour that Jenkins' xunit plugin publishes a schema for.

In:  the `Report`s of a commit, mostly one.
Out: one UTF-8 document: a testsuite per report, one testcase per test, so that its numbers are the report's.

JUnit knows a failure, an error and a skip, at most one of them per testcase here; its type names our outcome:

    passed               nothing
    failed               failure
    unexpected-success   failure
    errored, crashed, timed-out, load-error    error
    skipped, not-run     skipped
    expected-failure     skipped: it is no pass either, and pytest writes it so as well

A failed fixture is a testcase of its own, named by its phase, in the class that is its scope. Failed subtests
are told in the text of their test. A reader of JUnit sees red only where a testcase is red: so a run that did
not pass for another reason than its tests has one more testcase, named by its status, with an error.
"""

from __future__ import annotations

from datetime import UTC
from io import BytesIO
from typing import Any

from junitparser import Error, Failure, Skipped
from junitparser.xunit2 import JUnitXml, TestCase, TestSuite

from ciapp.outlets.names import class_and_method
from ciapp.outlets.terminal import escape_line, escape_text
from ciapp.results.report import FixtureResult, Outcome, Report, Status, TestResult

ELEMENTS = {
    Outcome.FAILED: Failure,
    Outcome.ERRORED: Error,
    Outcome.SKIPPED: Skipped,
    Outcome.EXPECTED_FAILURE: Skipped,
    Outcome.UNEXPECTED_SUCCESS: Failure,
    Outcome.CRASHED: Error,
    Outcome.TIMED_OUT: Error,
    Outcome.LOAD_ERROR: Error,
    Outcome.NOT_RUN: Skipped,
}
MESSAGES = {  #: where the report has none
    Outcome.EXPECTED_FAILURE: "failed as expected",
    Outcome.UNEXPECTED_SUCCESS: "passed, though a failure was expected",
    Outcome.NOT_RUN: "never started",
}


def to_junit(*reports: Report) -> bytes:
    """The reports of a commit as a JUnit XML document; what XML cannot hold is written out, as \\x1b."""
    first = reports[0]
    document = JUnitXml(escape_line(f"{first.repo} {first.commit}"))
    for report in reports:
        document.add_testsuite(_suite(report, with_environment=len(reports) > 1))
    document.update_statistics()  # type: ignore[no-untyped-call]
    for suite, report in zip(document, reports, strict=True):
        suite.time = round(report.duration_s, 3)  # the run's, not the sum of its tests
    document.time = round(sum(report.duration_s for report in reports), 3)
    written = BytesIO()
    document.write(written)
    return written.getvalue()


def _suite(report: Report, *, with_environment: bool) -> Any:
    name = f"{report.repo} {report.environment}" if with_environment else report.repo
    suite = TestSuite(escape_line(name))  # type: ignore[no-untyped-call]
    _set_facts(suite, report)
    cases = [_test_case(test) for test in report.tests] + [_fixture_case(one) for one in report.fixtures]
    tests_explain = any(case.is_failure or case.is_error for case in cases)
    if report.status is not Status.PASSED and not (report.status is Status.FAILED and tests_explain):
        cases.append(_status_case(report))
    suite.add_testcases(cases)
    if report.output:
        suite.system_out = escape_text(report.output)
    return suite


def _set_facts(suite: Any, report: Report) -> None:
    suite.hostname = escape_line(report.worker) or None
    if report.started_at:
        suite.timestamp = report.started_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    facts = {
        "repo": report.repo,
        "commit": report.commit,
        "tree": report.tree,
        "refs": " ".join(report.refs),
        "author": report.author,
        "subject": report.subject,
        "environment": report.environment,
        "attempt": str(report.attempt),
        "worker": report.worker,
        "status": report.status.value,
        "reason": report.reason,
        "python": report.python,
        "sandbox": report.sandbox,
        "reused_from": report.reused_from.commit if report.reused_from else "",
    }
    for name, value in facts.items():
        if value:
            suite.add_property(name, escape_line(value))
    for warning in report.warnings:
        suite.add_property("warning", escape_line(warning))


def _test_case(test: TestResult) -> Any:
    return _case(*class_and_method(test), _result_of(test), test, test.duration_s)


def _result_of(test: TestResult) -> Any:
    """Why a test is no plain pass; None when it is one."""
    if test.outcome not in ELEMENTS:
        return None
    texts = [test.traceback]
    for subtest in test.subtests:
        if subtest.outcome is not Outcome.PASSED:
            told = subtest.traceback or subtest.message
            texts.append(f"{subtest.outcome.value}: {escape_line(subtest.parameters)}\n{told}")
    message = test.message or MESSAGES.get(test.outcome, "")
    return _result(ELEMENTS[test.outcome], test.outcome, message, "\n".join(filter(None, texts)))


def _fixture_case(fixture: FixtureResult) -> Any:
    error = _result(Error, Outcome.ERRORED, fixture.message, fixture.traceback)
    return _case(fixture.scope, fixture.phase, error, fixture)


def _status_case(report: Report) -> Any:
    return _case("ciapp", report.status, _result(Error, report.status, report.reason, ""))


def _case(
    classname: str,
    name: str,
    result: Any,
    source: TestResult | FixtureResult | None = None,
    duration_s: float | None = None,
) -> Any:
    # Four digits: a shorter time would be written with an exponent, which readers of JUnit do not expect.
    time = None if duration_s is None else round(duration_s, 4)
    case = TestCase(escape_line(name), escape_line(classname) or None, time)
    if result is not None:
        case.result = result
    if source and source.stdout:
        case.system_out = escape_text(source.stdout)
    if source and source.stderr:
        case.system_err = escape_text(source.stderr)
    return case


def _result(element: Any, kind: Outcome | Status, message: str, text: str) -> Any:
    result = element(escape_line(message) or kind.value, kind.value)
    result.text = escape_text(text)
    return result
