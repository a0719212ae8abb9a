"""What commits of a drill hold: small projects, and what each of their tests ends as.

Every test's id holds the number of its commit, so a report on the wrong files cannot look right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from ciapp.results.report import Outcome, Status

HANG_LIMIT_S = 3.0  #: of a test in a project that has one which hangs

#: Kind of test → what it ends as, and its body.
BODIES: dict[str, tuple[Outcome, str]] = {
    "passes": (Outcome.PASSED, "pass"),
    "takes_a_moment": (Outcome.PASSED, "time.sleep(0.7)"),
    "prints_much": (Outcome.PASSED, "print('much ' * 20000)"),
    "fails": (Outcome.FAILED, "self.fail('broken')"),
    "fails_in_a_subtest": (Outcome.FAILED, "with self.subTest(n=1): self.assertEqual(1, 2)"),
    "errors": (Outcome.ERRORED, "raise ValueError('wrong')"),
    "skips": (Outcome.SKIPPED, "self.skipTest('not today')"),
    "fails_as_expected": (Outcome.EXPECTED_FAILURE, "self.fail('known')"),
    "succeeds_unexpectedly": (Outcome.UNEXPECTED_SUCCESS, "pass"),
    "exits": (Outcome.CRASHED, "os._exit(0)"),
    "reads_address_zero": (Outcome.CRASHED, "ctypes.string_at(0)"),
    "hangs": (Outcome.TIMED_OUT, "time.sleep(600)"),
}
DECORATED = {"fails_as_expected", "succeeds_unexpectedly"}

#: Kind of project → how often, and the tests that it has beside passing ones.
KINDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "passing": (30, ()),
    "slow": (20, ("takes_a_moment", "takes_a_moment")),
    "skipping": (8, ("skips", "fails_as_expected", "prints_much")),
    "failing": (12, ("fails", "fails_in_a_subtest")),
    "erroring": (8, ("errors", "succeeds_unexpectedly")),
    "exiting": (5, ("exits",)),
    "crashing": (4, ("reads_address_zero", "fails")),
    "hanging": (3, ("hangs",)),
    "unloadable": (5, ()),
    "misconfigured": (2, ()),
    "empty": (3, ()),
}


class Project(msgspec.Struct, frozen=True):
    """The files of one commit, described."""

    number: int  #: of the commit that first had them
    kind: str  #: one of KINDS
    tests: tuple[str, ...]  #: kinds of test, in order

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Test id → what it ends as."""
        if self.kind in ("misconfigured", "empty"):
            return {}
        found = {
            f"test_change.TestCommit{self.number}.test_{place:02}_{kind}": BODIES[kind][0]
            for place, kind in enumerate(self.tests)
        }
        if self.kind == "unloadable":
            found[f"test_unloadable_{self.number}"] = Outcome.LOAD_ERROR
        return found

    @property
    def status(self) -> Status:
        """What a run of it ends as."""
        if self.kind == "misconfigured":
            return Status.SETUP_FAILED
        if not self.outcomes:
            return Status.NO_TESTS
        good = all(outcome.is_good for outcome in self.outcomes.values())
        return Status.PASSED if good else Status.FAILED

    @property
    def files(self) -> dict[str, str]:
        """Path → text."""
        files = {"number.txt": f"{self.number}\n"}
        if self.kind == "misconfigured":
            files[".ciapp.toml"] = '[unittest]\nstrat = "tests"\n'
        if self.kind == "hanging":
            files[".ciapp.toml"] = f"[limits]\ntest_s = {HANG_LIMIT_S}\n"
        if self.kind != "empty":
            files["tests/test_change.py"] = self._module()
        if self.kind == "unloadable":
            files[f"tests/test_unloadable_{self.number}.py"] = "import a_module_that_is_not_there\n"
        return files

    def _module(self) -> str:
        lines = ["import ctypes", "import os", "import time", "import unittest", "", ""]
        lines.append(f"class TestCommit{self.number}(unittest.TestCase):")
        for place, kind in enumerate(self.tests):
            lines += ["    @unittest.expectedFailure"] if kind in DECORATED else []
            lines += [f"    def test_{place:02}_{kind}(self):", f"        {BODIES[kind][1]}", ""]
        return "\n".join(lines)


def make_project(number: int, chance: random.Random) -> Project:
    """A project of a kind that chance decides."""
    [kind] = chance.choices(list(KINDS), [weight for weight, _ in KINDS.values()])
    tests = [*KINDS[kind][1], *["passes"] * chance.randint(1, 4)]
    chance.shuffle(tests)
    return Project(number, kind, tuple(tests))


def count_kinds(projects: Sequence[Project]) -> dict[str, int]:
    """Projects per kind, in the order of KINDS."""
    return {kind: sum(one.kind == kind for one in projects) for kind in KINDS}
