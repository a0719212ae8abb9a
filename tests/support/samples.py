"""Sample projects named after their fault: run them, and hold what was found against what they expect.

Each sample's `expected.toml` states the whole report; `[plan]` says what differs from a plain run. A `*` in
an expected text stands for any text, where interpreters differ.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ciapp.results.report import Findings, FixtureResult, Outcome, TestResult, count_outcomes
from ciapp.settings import Limits
from ciapp.testing.sandbox import Sandbox
from ciapp.testing.supervisor import Progress, SuitePlan, run_suite
from tests.support.plain_sandbox import PlainSandbox

SAMPLES = Path(__file__).parent.parent / "samples"
OLDEST, NEWEST = 8, 14  #: minor versions of Python 3 that the child runs under
QUICK = Limits(test_s=20, run_s=60)


class Python(msgspec.Struct, frozen=True):
    """An interpreter of this machine."""

    path: Path
    version: str


@cache
def find_pythons() -> tuple[Python, ...]:
    """One interpreter per minor version from 3.8 on, from PATH and pyenv; the oldest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found: dict[int, Python] = {}
    for minor in range(OLDEST, NEWEST + 1):
        candidates = [
            *sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python3")),
            shutil.which(f"python3.{minor}"),
        ]
        for candidate in filter(None, candidates):
            asked = subprocess.run(
                [
                    candidate,
                    "-c",
                    "import sys, platform; print(sys.executable); print(platform.python_version())",
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if asked.returncode == 0:
                path, version = asked.stdout.split()
                found.setdefault(minor, Python(Path(path), version))
    return tuple(found.values())


def run_project(
    folder: Path,
    python: Path,
    *,
    sandbox: Sandbox | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_settled: Callable[[TestResult | FixtureResult], None] = lambda _: None,
    **changes: Any,
) -> Findings:
    """Findings of a project's tests, run where it stands. `changes` are fields of the plan."""
    plan = SuitePlan(
        **{
            "python": python,
            "start": "tests",
            "pattern": "test*.py",
            "top": None,
            "environment": {},
            "hash_seed": 1,
            "limits": QUICK,
            **changes,
        }
    )
    return run_suite(
        plan,
        sandbox or PlainSandbox(folder),
        on_progress=on_progress,
        should_stop=should_stop,
        on_settled=on_settled,
    )


def run_sample(name: str, python: Path, **changes: Any) -> Findings:
    """Findings of a copy of a sample, with the plan that it asks for."""
    plan = read_expected(name).get("plan", {})
    limits = msgspec.structs.replace(QUICK, **plan.get("limits", {}))
    known = tuple((test_id, ordinal) for test_id, ordinal in plan.get("known_tests", ()))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = Path(folder, name)
        shutil.copytree(SAMPLES / name, project, symlinks=True)
        changes = {"top": plan.get("top"), "limits": limits, "known_tests": known, **changes}
        return run_project(project, python, **changes)


def read_expected(name: str) -> dict[str, Any]:
    """What a sample expects of its report."""
    return tomllib.loads((SAMPLES / name / "expected.toml").read_text("utf-8"))


def add_sample_tests(module: dict[str, Any], names: Iterable[str]) -> None:
    """Give a test module one class per interpreter, with one test per sample.

    Those between the oldest and the newest are slow ones: what differs shows at the ends.
    """
    pythons = find_pythons()
    quick = {pythons[0].version, pythons[-1].version} if pythons else set()
    for python in pythons:
        class_name = f"TestSamplesUnderPython{python.version.replace('.', '_')}"
        tests = {f"test_{name}": _test_of(name, python) for name in names}
        module[class_name] = type(
            class_name, (unittest.TestCase,), {**tests, "__module__": module["__name__"]}
        )
        if python.version not in quick:
            pytest.mark.slow(module[class_name])


def _test_of(name: str, python: Python) -> Callable[[unittest.TestCase], None]:
    def test(self: unittest.TestCase) -> None:
        self.maxDiff = None
        expected = read_expected(name)
        findings = run_sample(name, python.path)
        actual = _shape(findings, expected)
        self.assertEqual(_fill(_defaults(expected), actual), actual)
        self.assertEqual(python.version, findings.python)

    return test


def _defaults(expected: dict[str, Any]) -> dict[str, Any]:
    outcomes = [Outcome(said.partition(":")[0]) for said in expected["tests"].values()]
    counts = {outcome.value: outcomes.count(outcome) for outcome in Outcome if outcome in outcomes}
    plain = {"reason": "", "warnings": [], "children": 1, "fixtures": [], "output": "", "counts": counts}
    return {**plain, **{key: value for key, value in expected.items() if key not in ("plan", "traceback")}}


def _shape(findings: Findings, expected: dict[str, Any]) -> dict[str, Any]:
    """The findings as `expected.toml` writes them; details of the tests that it speaks of."""
    tests = {test.id + (f"#{test.ordinal}" if test.ordinal else ""): test for test in findings.tests}
    shape: dict[str, Any] = {
        "status": findings.status.value,
        "reason": findings.reason,
        "warnings": list(findings.warnings),
        "children": findings.children,
        "fixtures": [f"{found.phase} {found.scope}: {found.message}" for found in findings.fixtures],
        "output": findings.output,
        "counts": count_outcomes(findings.tests),
        "tests": {name: _said(test.outcome, test.message) for name, test in tests.items()},
    }
    for stream in {"stdout", "stderr"} & expected.keys():
        shape[stream] = {name: getattr(tests[name], stream) for name in expected[stream]}
    if "subtests" in expected:
        shape["subtests"] = {
            name: sorted(
                f"{row.parameters} {_said(row.outcome, row.message)}" for row in tests[name].subtests
            )
            for name in expected["subtests"]
        }
    for name, parts in expected.get("traceback", {}).items():
        missing = [part for part in parts if part not in tests[name].traceback]
        assert not missing, f"{missing} not in the traceback of {name}:\n{tests[name].traceback}"
    return shape


def _said(outcome: Outcome, message: str) -> str:
    return f"{outcome.value}: {message}" if message else outcome.value


def _fill(expected: Any, actual: Any) -> Any:
    """The expected value, with the actual text where a `*` allows it."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return {key: _fill(value, actual.get(key)) for key, value in expected.items()}
    if isinstance(expected, str) and isinstance(actual, str) and "*" in expected:
        pattern = ".*".join(map(re.escape, expected.split("*")))
        return actual if re.fullmatch(pattern, actual, re.DOTALL) else expected
    return expected
