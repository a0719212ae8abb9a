"""Run a folder's tests by unittest alone, one after the other, and write what each ended as; for the oracle.

    python plain.py START OUTPUT [ID…]

OUTPUT gets a line of JSON when a test starts and when it ends, and one at the end of all. Tests whose ids are
given are passed over: an earlier process has seen to them. Nothing of ciapp is imported.
"""

from __future__ import annotations

import json
import sys
import unittest
from collections.abc import Iterator
from typing import Any, TextIO


def tests_of(suite: Any) -> Iterator[Any]:
    """The tests of a suite of suites, in order."""
    try:
        members = iter(suite)
    except TypeError:
        yield suite
        return
    for member in members:
        yield from tests_of(member)


def outcome_of(test: Any) -> str:
    """Run one test; what it ended as."""
    result = unittest.TestResult()
    test.run(result)
    if type(test).__name__ == "_FailedTest":
        return "load-error"
    found = {
        "errored": result.errors,
        "failed": result.failures,
        "skipped": result.skipped,
        "expected-failure": result.expectedFailures,
        "unexpected-success": result.unexpectedSuccesses,
    }
    return next((outcome for outcome, cases in found.items() if cases), "passed")


def name_of(test: Any) -> str:
    """A test's id; the module's name for one that could not be loaded."""
    name = test.id()
    return name.rpartition(".")[2] if type(test).__name__ == "_FailedTest" else name


def run_all(start: str, output: TextIO, done: set[str]) -> None:
    """Run what is not done."""
    for test in tests_of(unittest.defaultTestLoader.discover(start, pattern="test*.py")):
        name = name_of(test)
        if name not in done:
            print(json.dumps({"start": name}), file=output, flush=True)
            print(json.dumps({"end": name, "outcome": outcome_of(test)}), file=output, flush=True)
    print(json.dumps({"all": True}), file=output, flush=True)


if __name__ == "__main__":
    with open(sys.argv[2], "a", encoding="utf-8") as lines:  # noqa: PTH123 - the standard library alone
        run_all(sys.argv[1], lines, set(sys.argv[3:]))
