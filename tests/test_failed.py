"""What failed when it last ran: what is kept of run after run."""

from __future__ import annotations

import unittest

from ciapp.errors import CheckoutError
from ciapp.results import report as reports
from ciapp.results.report import Findings, FixtureResult, Outcome, Status
from ciapp.testing.failed import Failed, load_failed, save_failed, still_failed
from tests.support.git_repositories import new_folder


def findings(status: Status = Status.FAILED, fixtures: tuple[str, ...] = (), **outcomes: Outcome) -> Findings:
    """Tests "m.T.NAME" with their outcomes; fixtures by their scope."""
    tests = [reports.TestResult(id=f"m.T.{name}", outcome=outcome) for name, outcome in outcomes.items()]
    return Findings(
        status=status,
        tests=tuple(tests),
        fixtures=tuple(FixtureResult(phase="setUpClass", scope=scope) for scope in fixtures),
    )


def failed(*names: str, scopes: tuple[str, ...] = ()) -> Failed:
    return Failed(tests=tuple((f"m.T.{name}", 0) for name in names), scopes=scopes)


class TestStillFailed(unittest.TestCase):
    def test_a_whole_run_replaces_what_was_known(self) -> None:
        found = findings(
            a=Outcome.FAILED, b=Outcome.PASSED, c=Outcome.CRASHED, d=Outcome.SKIPPED, e=Outcome.NOT_RUN
        )
        self.assertEqual(failed("a", "c"), still_failed(failed("b", "gone"), found, was_part=False))

    def test_a_run_of_a_part_leaves_the_rest_as_it_was(self) -> None:
        found = findings(a=Outcome.PASSED, b=Outcome.ERRORED)
        self.assertEqual(failed("b", "c"), still_failed(failed("a", "c"), found, was_part=True))

    def test_what_was_cut_short_keeps_what_it_did_not_come_to(self) -> None:
        known = failed("a", "b", "c")
        for status in (Status.CANCELLED, Status.TIMED_OUT):
            found = findings(status, a=Outcome.PASSED, b=Outcome.NOT_RUN)
            self.assertEqual(failed("b", "c"), still_failed(known, found, was_part=False))
        self.assertEqual(known, still_failed(known, findings(Status.SETUP_FAILED), was_part=False))

    def test_a_test_that_a_crash_kept_from_running_again_stays(self) -> None:
        found = findings(a=Outcome.CRASHED, b=Outcome.NOT_RUN, c=Outcome.NOT_RUN)
        self.assertEqual(failed("a", "b"), still_failed(failed("b"), found, was_part=False))

    def test_fixtures_and_modules_are_kept_as_scopes_until_tests_in_them_have_run(self) -> None:
        found = findings(fixtures=("m.T",), a=Outcome.NOT_RUN)
        module = reports.TestResult(id="n", outcome=Outcome.LOAD_ERROR)
        found = Findings(status=Status.FAILED, tests=(*found.tests, module), fixtures=found.fixtures)
        known = still_failed(Failed(), found, was_part=False)
        self.assertEqual(failed(scopes=("m.T", "n")), known)

        known = still_failed(known, findings(Status.PASSED, a=Outcome.PASSED), was_part=True)
        self.assertEqual(failed(scopes=("n",)), known)

    def test_nothing_left_is_false(self) -> None:
        self.assertFalse(still_failed(failed("a"), findings(Status.PASSED, a=Outcome.PASSED), was_part=False))
        self.assertTrue(failed(scopes=("m",)))


class TestFile(unittest.TestCase):
    def test_it_comes_back_as_it_was_kept_and_a_damaged_file_says_nothing(self) -> None:
        file = new_folder(self) / "deep" / "a.json"
        known = Failed(tests=(("m.T.a", 1),), scopes=("n",))
        save_failed(file, known)
        self.assertEqual(known, load_failed(file))
        file.write_text("{")
        self.assertEqual(Failed(), load_failed(file))
        self.assertEqual(Failed(), load_failed(file.with_name("other.json")))

    def test_a_place_that_cannot_be_written_is_named(self) -> None:
        folder = new_folder(self)
        (folder / "file").touch()
        with self.assertRaisesRegex(CheckoutError, r"a\.json cannot be written: .*; check state_dir"):
            save_failed(folder / "file" / "a.json", Failed())


if __name__ == "__main__":
    unittest.main()
