"""Some tests of a suite alone: by name as with unittest's -k, by id, by class; and word of each at once."""

from __future__ import annotations

import re
import subprocess
import time
import unittest
from typing import Any

from ciapp.results import report as reports
from ciapp.results.report import FixtureResult, Outcome, Status
from tests.support.samples import find_pythons
from tests.test_supervisor import Project

CLASSES = """\
import unittest
class TestApp(unittest.TestCase):
    def test_one(self): pass
    def test_two(self): pass
    def test_One_more(self): pass
class TestOther(unittest.TestCase):
    def test_one(self): pass
"""


class TestNames(Project):
    def write_module(self, name: str, text: str) -> None:
        (self.folder / "tests" / f"{name}.py").write_text(text)

    def test_names_select_what_unittests_own_option_does_under_each_python(self) -> None:
        self.write_module("test_app", CLASSES)
        self.write_module("test_further", CLASSES.replace("TestApp", "TestFurther"))
        for python in find_pythons():
            for names in (["one"], ["*one"], ["App.test_t*", "Further*two"], ["test_app.*one"], ["ONE"]):
                with self.subTest(python=python.version, names=names):
                    options = [word for name in names for word in ("-k", name)]
                    told = subprocess.run(
                        [python.path, "-m", "unittest", "discover", "-v", "-s", "tests", *options],
                        cwd=self.folder,
                        capture_output=True,
                        text=True,
                    ).stderr
                    wanted = sorted(re.findall(r"^(\w+) \(.*\.\.\. ok$", told, re.MULTILINE))

                    findings = self.run_tests(python=python.path, names=tuple(names))

                    found = sorted(test.id.rpartition(".")[2] for test in findings.tests)
                    self.assertEqual(wanted, found)

    def test_names_hold_when_the_suite_goes_on_after_a_crash(self) -> None:
        self.write_tests(
            "def test_red_1(self): os._exit(0)\ndef test_blue(self): pass\ndef test_red_2(self): pass"
        )

        findings = self.run_tests(names=("red",), known_tests=(("gone", 0),))

        self.assertEqual({"test_red_1": "crashed", "test_red_2": "passed"}, self.outcomes(findings))
        self.assertEqual((2, ()), (findings.children, findings.warnings))

    def test_a_name_that_no_test_has_finds_no_tests(self) -> None:
        self.write_tests("def test_1(self): pass")

        self.assertEqual(Status.NO_TESTS, self.run_tests(names=("nothing",)).status)


class TestScopes(Project):
    def test_tests_of_a_class_or_module_run_besides_the_selected_ones(self) -> None:
        (self.folder / "tests" / "test_app.py").write_text(CLASSES)
        (self.folder / "tests" / "test_apples.py").write_text(CLASSES)

        findings = self.run_tests(
            only=(("test_app.TestApp.test_two", 0),), scopes=("test_app.TestOther", "test_apples")
        )

        self.assertEqual(
            {
                "test_app.TestApp.test_two",
                "test_app.TestOther.test_one",
                "test_apples.TestApp.test_One_more",
                "test_apples.TestApp.test_one",
                "test_apples.TestApp.test_two",
                "test_apples.TestOther.test_one",
            },
            {test.id for test in findings.tests},
        )


class TestNews(Project):
    def told(self, **changes: Any) -> list[reports.TestResult | FixtureResult]:
        news: list[reports.TestResult | FixtureResult] = []
        self.run_tests(on_settled=news.append, **changes)
        return news

    def test_each_test_is_told_once_in_order_with_its_traceback(self) -> None:
        self.write_tests(
            "def test_1(self): pass\ndef test_2(self): self.fail('red')\n"
            "def test_3(self): os._exit(0)\n@unittest.skip('not today')\ndef test_4(self): pass"
        )

        news = self.told()

        outcomes = [one.outcome for one in news if isinstance(one, reports.TestResult)]
        self.assertEqual([Outcome.PASSED, Outcome.FAILED, Outcome.CRASHED, Outcome.SKIPPED], outcomes)
        self.assertIn("AssertionError: red", news[1].traceback)

    def test_a_failed_fixture_is_told_and_so_are_the_tests_that_it_kept_from_running(self) -> None:
        (self.folder / "tests" / "test_app.py").write_text(
            "import unittest\nclass TestApp(unittest.TestCase):\n    @classmethod\n"
            "    def setUpClass(cls): raise ValueError('no')\n    def test_1(self): pass\n"
        )

        news = self.told()

        self.assertEqual(
            {"setUpClass", "not-run"},
            {one.phase if isinstance(one, FixtureResult) else one.outcome.value for one in news},
        )

    def test_a_test_is_told_of_while_the_next_one_runs(self) -> None:
        self.write_tests("def test_1(self): pass\ndef test_2(self): time.sleep(100)")
        told_at: list[float] = []

        findings = self.run_tests(
            on_settled=lambda _: told_at.append(time.monotonic()), should_stop=lambda: bool(told_at)
        )

        self.assertEqual(Status.CANCELLED, findings.status)
        self.assertEqual({"test_1": "passed", "test_2": "not-run"}, self.outcomes(findings))
        self.assertLess(findings.duration_s, 20)


if __name__ == "__main__":
    unittest.main()
