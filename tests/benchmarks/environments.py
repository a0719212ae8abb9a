"""What an environment costs a commit: made, found again, and against the same tests in one that is ready.

    python -m tests.benchmarks.environments [--rounds N]

A project with ten dependencies, whose tests import them all, is committed again and again with changed code.
Plain unittest in a virtual environment made by hand is the measure, run in turn with ciapp. Needs the package
registry.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import time
import unittest

from ciapp.settings import Limits, Settings
from ciapp.testing.checkout import Checkout
from ciapp.testing.environment import default_python
from ciapp.testing.preparation import prepare_environment
from ciapp.testing.sandbox import open_sandbox
from ciapp.testing.supervisor import SuitePlan, run_suite
from ciapp.testing.uv import uv_program
from tests.support.git_repositories import new_folder
from tests.support.sandboxes import Place

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
        self.place = Place(test)
        self.settings = Settings(state_dir=str(self.place.state))
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
        self.venv = new_folder(test) / "venv"
        python = str(default_python().python)
        subprocess.run([uv_program(), "venv", "--quiet", "--python", python, self.venv], check=True)

    def commit(self) -> tuple[Checkout, str]:
        """A checkout with new code, and its tree."""
        self.number += 1
        commit = self.place.origin.commit(
            "Change", self.files | {"src/team/code.py": f"NUMBER = {self.number}\n"}
        )
        return self.place.check_out(commit), self.place.origin.git("rev-parse", f"{commit}^{{tree}}")

    def test_by_ciapp(self, checkout: Checkout, tree: str) -> tuple[float, float]:
        """Seconds that the environment took, and that everything did."""
        started_s = time.perf_counter()
        with prepare_environment(
            self.place.slot, checkout, "auto", self.settings, tree=tree, interpreter=default_python()
        ) as environment:
            prepared_s = time.perf_counter() - started_s
            plan = SuitePlan(
                python=environment.python,
                readable=environment.readable,
                start="tests",
                pattern="test*.py",
                top=".",
                environment=environment.variables,
                hash_seed=0,
                limits=Limits(),
            )
            sandbox = open_sandbox(self.place.slot, checkout, Limits())
            found = run_suite(plan, sandbox, on_progress=lambda _: None, should_stop=lambda: False)
        assert found.status.value == "passed", found
        return prepared_s, time.perf_counter() - started_s

    def install_by_hand(self) -> None:
        """The project and its dependencies in the other environment, byte-code and all."""
        words = ["pip", "install", "--quiet", "--compile-bytecode", "--python", self.venv / "bin" / "python"]
        subprocess.run([uv_program(), *words, "-e", self.place.origin.path], check=True)
        shutil.rmtree(self.place.origin.path / "src" / "team.egg-info")

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
        subprocess.run(words, cwd=self.place.origin.path, check=True, capture_output=True)
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
        made_s, _ = bench.test_by_ciapp(*bench.commit())
        bench.install_by_hand()
        bench.test_by_hand()
        found_s, whole_s, by_hand_s = [], [], []
        for _ in range(chosen.rounds):
            checkout, tree = bench.commit()
            found, whole = bench.test_by_ciapp(checkout, tree)
            found_s.append(found)
            whole_s.append(whole)
            by_hand_s.append(bench.test_by_hand())
    finally:
        case.doCleanups()
    print(f"environment made with ten dependencies  {made_s:8.2f} s")
    print(f"environment found again, median         {1000 * statistics.median(found_s):8.1f} ms")
    print(f"                         highest        {1000 * max(found_s):8.1f} ms")
    ours, theirs = statistics.median(whole_s), statistics.median(by_hand_s)
    print(f"ciapp, environment and tests, median    {1000 * ours:8.1f} ms")
    print(f"unittest in a ready environment, median {1000 * theirs:8.1f} ms")
    print(f"ratio                                   {ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
