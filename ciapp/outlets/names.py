"""How a test is called where people read it.

In:  a test's result.
Out: the class and the method that unittest would name; together they are unique in a report.
"""

from __future__ import annotations

import re

from ciapp.results.report import Outcome, TestResult

LOAD_ERROR_CLASS = "unittest.loader._FailedTest"  #: of what unittest puts in place of a module

# Ids end in whatever a suite likes, "test_x (1.5)": only dots before a blank, bracket or quote divide names.
_DOTTED = re.compile(r"[^\s(\[{<'\"]*\.")


def class_and_method(test: TestResult) -> tuple[str, str]:
    """("tests.test_app.TestApp", "test_x"); the second test of that id is "test_x #2".

    The class is empty when the id has no dot.
    """
    owner, method = _divided(test)
    return owner, method + _numbered(test)


def unittest_name(test: TestResult) -> str:
    """As unittest shows it: "test_x (tests.test_app.TestApp.test_x)"; the second of that id ends in " #2"."""
    owner, method = _divided(test)
    whole = f"{owner}.{method}" if test.outcome is Outcome.LOAD_ERROR else test.id
    return f"{method} ({whole}){_numbered(test)}"


def _divided(test: TestResult) -> tuple[str, str]:
    if test.outcome is Outcome.LOAD_ERROR:
        return LOAD_ERROR_CLASS, test.id
    dotted = _DOTTED.match(test.id)
    start = dotted.end() if dotted else 0
    return test.id[: max(start - 1, 0)], test.id[start:]


def _numbered(test: TestResult) -> str:
    return f" #{test.ordinal + 1}" if test.ordinal else ""
