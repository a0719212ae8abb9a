"""Reports in one line: results by what became of them, and a report whose status follows from them."""

from __future__ import annotations

from typing import Any

from ciapp.results.report import (
    FixtureResult,
    Outcome,
    Report,
    Status,
    Subtest,
    TestResult,
    count_outcomes,
)


def result(
    outcome: Outcome | str, test_id: str = "tests.test_app.TestApp.test_x", **fields: Any
) -> TestResult:
    """One test's result; 1 ms long, without a traceback."""
    return TestResult(outcome=Outcome(outcome), id=test_id, **{"duration_s": 0.001, **fields})


def subtest(outcome: Outcome | str, parameters: str, ordinal: int = 0, **fields: Any) -> Subtest:
    """One subtest's result."""
    return Subtest(outcome=Outcome(outcome), parameters=parameters, ordinal=ordinal, **fields)


def fixture(phase: str, scope: str = "tests.test_app.TestApp", **fields: Any) -> FixtureResult:
    """A fixture that failed."""
    return FixtureResult(phase=phase, scope=scope, **fields)


def report(*tests: TestResult, **fields: Any) -> Report:
    """A report on these tests: passed when all are good and no fixture failed, no-tests without any."""
    good = all(test.outcome.is_good for test in tests) and not fields.get("fixtures")
    status = (Status.PASSED if good else Status.FAILED) if tests or not good else Status.NO_TESTS
    return Report(
        **{
            "repo": "team",
            "commit": "d4e5f6a1b2c3" + "0" * 28,
            "tree": "7" * 40,
            "subject": "Teach the adder to add",
            "worker": "worker-1",
            "status": status,
            "tests": tests,
            "counts": count_outcomes(tests),
            "duration_s": 0.001,
            **fields,
        }
    )
