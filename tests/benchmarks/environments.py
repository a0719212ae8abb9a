"""What an environment costs a commit: made, found again, and against the same tests in one that is ready.

    python -m tests.benchmarks.environments [--rounds N] [--tests N]

A project with ten dependencies, whose tests import them all, is committed again and again with changed code.
Plain unittest in a virtual environment made by hand is the measure, run in turn with ciapp, of which all
counts that a worker does for a run: claim, fetch, checkout, environment, fingerprint, the look for a result
to reuse, the tests in the sandbox, the report and its storage. What comes before, from the hook to the queue,
is the same without dependencies, and is measured in `tests.benchmarks.walk`. Needs the package registry.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import time
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

from ciapp.results.report import Status
from ciapp.testing import suite
from ciapp.testing.environment import default_python
from ciapp.testing.preparation import Environment, prepare_environment
from ciapp.testing.uv import uv_program
from tests.support.git_repositories import new_folder
from tests.support.pipelines import Pipeline

DEPENDENCIES = {
    "attrs": "attr",
    "click": "click",
    "jinja2": "jinja2",
    "markdown": "markdown",
    "more-itertools": "more_itertools",
    "packaging": "packaging.version",
    "pygments": "pygments.lexers",
    "pyyaml": "yaml",
    "requests": "requests",
    "rich": "rich.console",
}
PYPROJECT = f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "team"
version = "1.0"
dependencies = {list(DEPENDENCIES)}
"""
TEST = """\
import time
import unittest
{imports}
from team import code


class TestAll(unittest.TestCase):
    def test_code(self):
        self.assertTrue(code.NUMBER)
{tests}
"""
WORK = "    def test_{0}(self):\n        self.assertEqual(4, len(markdown.markdown('a *b* c' * 200)[:4]))\n"


class Bench:
    """One project, committed with changes, tested by ciapp and by hand."""

    def __init__(self, test: unittest.TestCase, tests: int) -> None:
        self.pipeline = Pipeline(test)
        imports = "\n".join(f"import {module}" for module in DEPENDENCIES.values())
        self.files = {
            "pyproject.toml": PYPROJECT,
            "src/team/__init__.py": "",
            "tests/__init__.py": "",
            "tests/test_all.py": TEST.format(
                imports=imports, tests="\n".join(WORK.format(number) for number in range(tests))
            ),
        }
        self.number = 0
        self.prepared_s: list[float] = []  #: what it took to have each run's environment
        self.tested_s: list[float] = []  #: what each run's children took
        self.venv = new_folder(test) / "venv"
        python = str(default_python().python)
        subprocess.run([uv_program(), "venv", "--quiet", "--python", python, self.venv], check=True)
        test.enterContext(mock.patch.object(suite, "prepare_environment", self.prepare_environment))

    @contextlib.contextmanager
    def prepare_environment(self, *words: Any, **options: Any) -> Iterator[Environment]:
        """The real one, timed."""
        started_s = time.perf_counter()
        with prepare_environment(*words, **options) as environment:
            self.prepared_s.append(time.perf_counter() - started_s)
            yield environment

    def test_by_ciapp(self) -> float:
        """Seconds from the claim of a commit with new code to its stored report."""
        self.number += 1
        files = self.files | {"src/team/code.py": f"NUMBER = {self.number}\n"}
        commit = self.pipeline.tree.commit("Change", files)
        self.pipeline.push()
        started_s = time.perf_counter()
        report = self.pipeline.test(commit)
        took_s = time.perf_counter() - started_s
        assert report.status is Status.PASSED, report
        assert not report.reused_from, report
        self.tested_s.append(report.duration_s)
        return took_s

    def install_by_hand(self) -> None:
        """The project and its dependencies in the other environment, byte-code and all."""
        words = ["pip", "install", "--quiet", "--compile-bytecode", "--python", self.venv / "bin" / "python"]
        subprocess.run([uv_program(), *words, "-e", self.pipeline.tree.path], check=True)
        shutil.rmtree(self.pipeline.tree.path / "src" / "team.egg-info")

    def test_by_hand(self) -> float:
        """Seconds that plain unittest took."""
        words = [
            self.venv / "bin" / "python",
            "-B",
            "-m",
            "unittest",
            "discover",
            "-q",
            "-s",
            "tests",
            "-t",
            ".",
        ]
        started_s = time.perf_counter()
        subprocess.run(words, cwd=self.pipeline.tree.path, check=True, capture_output=True)
        return time.perf_counter() - started_s


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--tests", type=int, default=300)
    chosen = arguments.parse_args()
    case = unittest.TestCase()
    try:
        bench = Bench(case, chosen.tests)
        bench.test_by_ciapp()
        bench.install_by_hand()
        bench.test_by_hand()
        whole_s, by_hand_s = [], []
        for _ in range(chosen.rounds):
            whole_s.append(bench.test_by_ciapp())
            by_hand_s.append(bench.test_by_hand())
    finally:
        case.doCleanups()
    made_s, *found_s = bench.prepared_s
    print(f"environment made with ten dependencies  {made_s:8.2f} s")
    print(f"environment found again, median         {1000 * statistics.median(found_s):8.1f} ms, at most 50")
    print(f"                         highest        {1000 * max(found_s):8.1f} ms")
    ours, theirs = statistics.median(whole_s), statistics.median(by_hand_s)
    print(f"ciapp, claim to stored report, median   {1000 * ours:8.1f} ms")
    print(f"  of it the tests' own process          {1000 * statistics.median(bench.tested_s[1:]):8.1f} ms")
    print(f"unittest in a ready environment, median {1000 * theirs:8.1f} ms")
    print(f"ratio                                   {ours / theirs:8.2f}, at most 1.15")


if __name__ == "__main__":
    main()
