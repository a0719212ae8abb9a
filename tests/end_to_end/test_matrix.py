"""A commit that names Pythons: a run under each, by real workers that have some of them."""

from __future__ import annotations

import json
import unittest

from ciapp.results.report import State, Status
from ciapp.results.runs import Run
from ciapp.testing.interpreters import minor_version
from tests.support.installation import Embedded, Installation, RabbitmqPostgresql, eventually
from tests.support.samples import Python, find_pythons
from tests.support.services import need

TELLS_ITS_PYTHON = """
import sys
import unittest


class TestA(unittest.TestCase):
    def test_a(self):
        self.assertNotIn(f"{sys.version_info[0]}.{sys.version_info[1]}", BROKEN)
"""


def two_pythons() -> tuple[Python, Python]:
    """The newest two of this machine, the older one first."""
    found = find_pythons()
    if len(found) < 2:
        need("a second Python", "this machine has one alone")
    return found[-2], found[-1]


class Matrix:
    """Mixed into a test case per combination of broker and database."""

    def install(self, *settings: str) -> Installation:
        raise NotImplementedError

    def project(self, *versions: str, broken: tuple[str, ...] = ()) -> dict[str, str]:
        return {
            ".ciapp.toml": f"python = {json.dumps(versions)}\n",
            "tests/test_a.py": TELLS_ITS_PYTHON.replace("BROKEN", repr(list(broken))),
        }

    def finished(self, ci: Installation, commit: str, number: int) -> dict[str, Run]:
        """The runs of a commit by environment, once so many have finished."""

        def look() -> list[Run] | None:
            runs = [run for run in ci.runs(commit) if run.state is State.FINISHED]
            return runs if len(runs) == number else None

        try:
            return {run.environment: run for run in eventually(look, f"{number} runs of {commit} finish")}
        except AssertionError as error:
            raise AssertionError(f"{error}\n{ci.logs()}") from None

    def test_a_commit_has_a_run_under_each_of_its_pythons(self):
        old, new = two_pythons()
        versions = [minor_version(old.version), minor_version(new.version)]
        ci = self.install(f'pythons = ["{old.path}", "{new.path}"]')
        clone = ci.make_repository()
        ci.start_all(slots=2)
        commit = ci.push_commit(clone, self.project(*versions, broken=(versions[1],)))

        runs = self.finished(ci, commit, 2)
        self.assertEqual({f"python{version}" for version in versions}, set(runs))
        passed, failed = (runs[f"python{version}"] for version in versions)
        self.assertEqual((Status.PASSED, Status.FAILED), (passed.status, failed.status))


class TestEmbedded(Embedded, Matrix, unittest.TestCase):
    pass


class TestRabbitmqPostgresql(RabbitmqPostgresql, Matrix, unittest.TestCase):
    pass


if __name__ == "__main__":
    unittest.main()
