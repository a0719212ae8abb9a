"""Real projects of every usual build backend, in environments made for them from the package registry.

What ciapp counts must be what plain unittest counts in an environment made by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import pytest

from ciapp.results.report import Findings, Outcome, Status
from ciapp.settings import Settings
from ciapp.testing.environment import default_python
from ciapp.testing.preparation import prepare_environment
from ciapp.testing.project import load_project
from ciapp.testing.sandbox import open_sandbox
from ciapp.testing.supervisor import SuitePlan, run_suite
from ciapp.testing.uv import uv_program
from tests.support.installation import PASSING, Embedded
from tests.support.package_index import PackageIndex, wheel
from tests.support.sandboxes import Place
from tests.support.source_distributions import unpack_source

SUMMARY = re.compile(r"^Ran (\d+) tests? in .*?\n\n(?:OK|FAILED)(?: \((.*)\))?", re.MULTILINE)
TOLD = {
    Outcome.FAILED: "failures",
    Outcome.ERRORED: "errors",
    Outcome.LOAD_ERROR: "errors",
    Outcome.SKIPPED: "skipped",
}


class TestPushes(Embedded, unittest.TestCase):
    def test_a_pushed_commit_finds_what_it_requires_or_says_why_not(self):
        index = PackageIndex(self, wheel("alpha"))
        with mock.patch.dict(os.environ, {"UV_HTTP_RETRIES": "0"}):
            ci = self.install("attempts = 1", "[install]", f'index_url = "{index.url}"')
        clone = ci.make_repository()
        ci.start_all()
        test = PASSING.replace("import unittest", "import unittest\n\nimport alpha")
        good = ci.push_commit(clone, {"test_a.py": test, "requirements.txt": "alpha\n"})
        bad = ci.push_commit(clone, {"requirements.txt": "alpha\nbeta\n"})

        self.assertEqual(Status.PASSED, ci.report(good).status)
        report = ci.report(bad)
        self.assertEqual(Status.SETUP_FAILED, report.status)
        self.assertRegex(
            report.reason, "cannot be installed: Because beta was not found in the package registry"
        )
        self.assertIn("error: No solution found when resolving dependencies", report.output)

        index.status, asked = 503, len(index.requests)
        report = ci.report(ci.push_commit(clone, {"requirements.txt": "alpha\ngamma\n"}))
        self.assertEqual(Status.INFRA_ERROR, report.status)
        self.assertRegex(report.reason, "the package registry does not answer: .*; check .install. and the")
        self.assertGreaterEqual(len(index.requests) - asked, 3)

        # What is there already needs no registry.
        again = ci.push_commit(clone, {"requirements.txt": "alpha\n", "app.py": "X = 1"})
        self.assertEqual(Status.PASSED, ci.report(again).status)


class TestRealProjects(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.folder.chmod(0o755)

    def setUp(self) -> None:
        self.place = Place(self)
        # One store for all: the registry is asked once for what they share.
        self.settings = Settings(state_dir=str(self.folder / "state"))

    def test_setuptools(self):
        explanation = self.counts_are_equal("python-slugify==9.2.0")
        self.assertRegex(explanation, "^installed: the project, as pyproject.toml has it")

    def test_a_c_extension_with_dependencies(self):
        # Its extra `test` is all of zope; its tests need what it requires.
        explanation = self.counts_are_equal(
            "zope.proxy==7.3", install=["-e", "."], start="src/zope/proxy/tests", top="src"
        )
        self.assertIn("made anew for each tree", explanation)

    def test_setuptools_with_setup_py(self):
        self.counts_are_equal("hyperlink==21.0.0", start="src/hyperlink/test", top="src")

    @pytest.mark.slow
    def test_hatchling(self):
        self.counts_are_equal(
            "pymdown-extensions==13.1",
            install=["-e", ".", "pygments"],
            start="tests/test_extensions",
            pattern="test_b*.py",
        )

    @pytest.mark.slow
    def test_flit(self):
        self.counts_are_equal("trailrunner==1.4.0", start="trailrunner/tests", pattern="*.py", top=".")

    @pytest.mark.slow
    def test_poetry_core(self):
        self.counts_are_equal("py-serializable==2.2.0", install=["-e", ".", "xmldiff"])

    @pytest.mark.slow
    def test_poetry_core_without_dependencies(self):
        self.counts_are_equal("mnemonic==0.21", top="tests")

    @pytest.mark.slow
    def test_flit_without_dependencies(self):
        self.counts_are_equal("pathspec==1.1.1")

    @pytest.mark.slow
    def test_a_c_extension_without_dependencies(self):
        explanation = self.counts_are_equal("simplejson==4.3.0", start="simplejson/tests", top=".")
        self.assertIn("made anew for each tree", explanation)

    def counts_are_equal(
        self,
        project: str,
        *,
        install: list[str] | str = "auto",
        start: str = "tests",
        pattern: str = "test*.py",
        top: str = ".",
    ) -> str:
        source = unpack_source(project, self.folder / project)
        origin = self.place.origin
        shutil.copytree(source, origin.path, dirs_exist_ok=True, symlinks=True)
        found, explanation = self.run_in_ci(origin.commit(project), install, start, pattern, top)
        by_hand = self.run_by_hand(source, install, start, pattern, top)

        self.assertGreater(by_hand["run"], 5)
        self.assertEqual(by_hand, as_unittest_counts(found), found.output)
        return explanation

    def run_in_ci(
        self, commit: str, install: list[str] | str, start: str, pattern: str, top: str
    ) -> tuple[Findings, str]:
        checkout = self.place.check_out(commit)
        tree = self.place.origin.git("rev-parse", f"{commit}^{{tree}}")
        limits = self.settings.limits
        config = {"install": install, "unittest": {"start": start, "pattern": pattern, "top": top}}
        project = load_project(checkout.path, config, limits)
        with prepare_environment(
            self.place.slot,
            checkout,
            project.install,
            self.settings,
            tree=tree,
            interpreter=default_python(),
        ) as environment:
            plan = SuitePlan(
                python=environment.python,
                readable=environment.readable,
                start=start,
                pattern=pattern,
                top=top,
                environment=environment.variables,
                hash_seed=0,
                limits=limits,
            )
            sandbox = open_sandbox(self.place.slot, checkout, limits)
            found = run_suite(plan, sandbox, on_progress=lambda _: None, should_stop=lambda: False)
            return found, environment.explanation

    def run_by_hand(
        self, source: Path, install: list[str] | str, start: str, pattern: str, top: str
    ) -> dict[str, int]:
        """What unittest's own last lines say: tests run, failures, errors, skipped."""
        venv = source.parent / "venv"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        python = str(venv / "bin" / "python")
        wanted = install if isinstance(install, list) else ["-e", "."]
        for words in (
            [str(uv_program()), "venv", "--quiet", "--python", str(default_python().python), str(venv)],
            [str(uv_program()), "pip", "install", "--quiet", "--python", python, *wanted],
        ):
            subprocess.run(words, cwd=source, env=environ | {"VIRTUAL_ENV": str(venv)}, check=True)
        words = [python, "-m", "unittest", "discover", "-s", start, "-p", pattern, "-t", top]
        path = f"{venv}/bin:{environ['PATH']}"
        done = subprocess.run(
            words, cwd=source, env=environ | {"PATH": path}, capture_output=True, text=True, check=False
        )
        summary = SUMMARY.search(done.stderr)
        assert summary is not None, done.stderr[-2000:]
        counts = {
            name.strip(): int(value) for name, value in re.findall(r"([a-z ]+)=(\d+)", summary[2] or "")
        }
        return {"run": int(summary[1])} | counts


def as_unittest_counts(found: Findings) -> dict[str, int]:
    """Tests in unittest's words; subtests that fail or skip count each, as unittest counts them."""
    counts = {"run": 0, "failures": 0, "errors": len(found.fixtures), "skipped": 0}
    for test in found.tests:
        counts["run"] += test.outcome is not Outcome.NOT_RUN
        told = [part for part in test.subtests if part.outcome in TOLD]
        for part in told or [test]:
            if part.outcome in TOLD:
                counts[TOLD[part.outcome]] += 1
    return {name: count for name, count in counts.items() if count}


if __name__ == "__main__":
    unittest.main()
