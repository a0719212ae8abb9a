"""Real projects, as their source distributions have them, and this repository itself.

What ciapp counts must be what `python -m unittest discover`, run by hand in the project's folder, counts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from ciapp.results.report import Outcome, Report, Status
from ciapp.testing.environment import default_python
from tests.support.installation import CODE, Embedded
from tests.support.services import need
from tests.support.source_distributions import unpack_source

SUMMARY = re.compile(rb"^Ran (\d+) tests? in .*?\n\n(OK|FAILED)(?: \((.*)\))?", re.MULTILINE)
AS_ERRORS = (Outcome.ERRORED, Outcome.LOAD_ERROR)


def run_by_hand(folder: Path, words: tuple[str, ...]) -> dict[str, int]:
    """What unittest's own last lines say: tests run, failures, errors, skipped."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    python = str(default_python().python)
    done = subprocess.run(
        [python, "-m", "unittest", "discover", *words],
        cwd=folder,
        env=environ,
        capture_output=True,
        check=False,
    )
    found = SUMMARY.search(done.stderr)
    assert found is not None, done.stderr[-2000:]
    counts = {name: int(value) for name, value in re.findall(r"([a-z ]+)=(\d+)", (found[3] or b"").decode())}
    return {"run": int(found[1])} | {name.strip(): value for name, value in counts.items()}


def as_unittest_counts(report: Report) -> dict[str, int]:
    """A report's tests in unittest's words; failing subtests count each, as unittest counts them."""
    counts = {"run": 0, "failures": 0, "errors": len(report.fixtures), "skipped": 0}
    for test in report.tests:
        counts["run"] += test.outcome is not Outcome.NOT_RUN
        bad = [part for part in test.subtests if not part.outcome.is_good]
        parts = bad or [test]
        counts["failures"] += sum(part.outcome is Outcome.FAILED for part in parts)
        counts["errors"] += sum(part.outcome in AS_ERRORS for part in parts)
        counts["skipped"] += test.outcome is Outcome.SKIPPED
    return {name: count for name, count in counts.items() if count}


class TestRealProjects(Embedded, unittest.TestCase):
    def assert_counted_as_by_hand(self, project: str, *words: str) -> None:
        ci = self.install("[repository.team.project]", "install = false")
        clone = ci.make_repository()
        source = unpack_source(project, ci.folder / "download")
        shutil.copytree(source, clone, dirs_exist_ok=True, symlinks=True)
        commit = ci.commit(clone, {}, project)
        ci.start_all()
        ci.push(clone)
        report = ci.report(commit, deadline_s=180)
        by_hand = run_by_hand(source, words)

        self.assertGreater(by_hand["run"], 50)
        self.assertEqual(by_hand, as_unittest_counts(report), report.warnings)

    def test_markdown(self):
        self.assert_counted_as_by_hand("Markdown==3.11.3")

    def test_jsonpointer(self):
        self.assert_counted_as_by_hand("jsonpointer==3.12")

    def test_pyasn1(self):
        self.assert_counted_as_by_hand("pyasn1==0.6.1")


class TestItself(Embedded, unittest.TestCase):
    def test_this_repository_is_tested_by_what_it_holds(self):
        if not (CODE / ".git").exists():
            self.skipTest("this is no clone of the repository")
        pattern = '[repository.ciapp.project.unittest]\npattern = "test_[st]e*.py"'
        ci = self.install("[limits]\ntest_s = 300.0", pattern)
        bare = ci.folder / "ciapp.git"
        ci.git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        ci.ciapp("hook", "install", str(bare), "--name", "ciapp")
        ci.start_all()
        ci.git("-c", f"safe.directory={CODE}", "push", "--quiet", str(bare), "HEAD:refs/heads/main", cwd=CODE)
        commit = ci.git("rev-parse", "HEAD", cwd=CODE)
        report = ci.report(commit, "ciapp", deadline_s=300)
        if "registry does not answer" in report.reason:
            need("the package registry", report.reason)
        self.assertEqual(Status.PASSED, report.status, (report.reason, report.counts, report.warnings))
        self.assertGreater(report.counts["passed"], 40)


if __name__ == "__main__":
    unittest.main()
