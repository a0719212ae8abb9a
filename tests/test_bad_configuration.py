"""A commit whose configuration cannot be used: its own failure, by file and line, after a real run."""

from __future__ import annotations

import shutil
import unittest

from ciapp.errors import SettingsError
from ciapp.results.report import Status
from tests.support.installation import PASSING
from tests.support.pipelines import Pipeline

TESTS = {"tests/test_a.py": PASSING}
NO_FOLDER = "is no folder of the commit; name one"
#: What is wrong → lines of .ciapp.toml, where it is, what is said of it.
WRONG: dict[str, tuple[str, int, str]] = {
    "an unknown key": ("intall = false", 1, "unknown setting 'intall'; did you mean 'install'?"),
    "an unknown key of a table": ("[limits]\ntests_s = 3", 2, "unknown setting 'limits.tests_s'; did you"),
    "a wrong type": ("[limits]\nrun_s = 'long'", 2, "setting 'limits.run_s': expected `float`, got"),
    "a variable that is no text": ("[env]\nA = ''\nB = 1", 3, "setting 'env.B': expected `str`, got `int`"),
    "a limit above the server's": (
        "[limits]\n\nmemory_mib = 4097",
        3,
        "limits.memory_mib is 4097; give more",
    ),
    "a limit that is no number": ("[limits]\ntest_s = nan", 2, "limits.test_s is nan; give more than 0"),
    "a start that is not there": ("[unittest]\nstart = 'no'", 2, f"unittest.start 'no' {NO_FOLDER}"),
    "a start that is a file": (
        "[unittest]\nstart = 'tests/test_a.py'",
        2,
        f"unittest.start 'tests/test_a.py' {NO_FOLDER}",
    ),
    "a start of 300 letters": (f"[unittest]\nstart = '{'a' * 300}'", 2, "unittest.start 'aaaaaaaaaa"),
    "a top that is not there": ("[unittest]\ntop = 'no'", 2, f"unittest.top 'no' {NO_FOLDER}"),
    "a top that does not hold the start": (
        "[unittest]\nstart = '.'\ntop = 'tests'",
        3,
        "unittest.top 'tests' does not hold unittest.start '.'; name a folder that does",
    ),
    "a table that is none": ("limits = [1]", 1, "setting 'limits': expected `table`, got `array`"),
    "an install that is no list": (
        "install = 'six'",
        1,
        "setting 'install': give \"auto\", false, or a list",
    ),
    "a byte order mark": (
        "\ufeffreuse = true",
        1,
        "it begins with a byte order mark, which TOML has none of",
    ),
    "a number of thousands of digits": (
        f"[limits]\nmemory_mib = {'9' * 5000}",
        2,
        "a number has more digits than are read; write a shorter one",
    ),
    "broken TOML": ("[unittest]\nstart = ", 2, "not valid TOML: Invalid value (the file ends there)"),
    "a key that takes hours": (f"\n{'a.' * 200_000}a = 1", 2, "lines with thousands of dots"),
    "more environment than a program may have": (f"[env]\nA = '{'a' * 200_000}'", 1, "env holds more than"),
    "an install option": ("install = ['--target=/']", 1, "install: option '--target' is none that a commit"),
    "an install folder": ("install = ['-r', 'tests']", 1, "install: 'tests' is no plain file"),
    "an install name of 300 letters": (f"install = ['./{'a' * 300}']", 1, "install: 'aaaaaaaaaaaaa"),
}


class TestBadConfiguration(unittest.TestCase):
    def test_it_is_the_commits_setup_failure_by_file_and_line(self):
        pipeline = Pipeline(self)
        for name, (text, line, said) in WRONG.items():
            with self.subTest(name):
                report = pipeline.push_commit(TESTS | {".ciapp.toml": text})
                self.assertEqual(Status.SETUP_FAILED, report.status)
                self.assertTrue(report.reason.startswith(f".ciapp.toml:{line}: {said}"), report.reason)
                self.assertEqual((), report.tests)
        # The slot is as good as before.
        self.assertEqual(Status.PASSED, pipeline.push_commit({".ciapp.toml": ""}).status)

    def test_a_file_that_is_none_is_said_by_its_name(self):
        pipeline = Pipeline(self)
        file = pipeline.tree.path / ".ciapp.toml"
        plain = r"^\.ciapp\.toml is no plain file of at most 1048576 bytes; make it one$"
        for said, make in (
            (
                r"^\.ciapp\.toml is a symbolic link; make it a plain file$",
                lambda: file.symlink_to("/dev/zero"),
            ),
            (plain, lambda: (file.mkdir(), (file / "x").touch())),
            (plain, lambda: file.write_text("# x\n" * 1_300_000)),
        ):
            with self.subTest(said):
                make()
                report = pipeline.push_commit(TESTS)
                self.assertEqual(Status.SETUP_FAILED, report.status)
                self.assertRegex(report.reason, said)
                shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()

    def test_it_is_no_different_in_pyproject(self):
        pipeline = Pipeline(self)
        for name, text, line, said in (
            ("an unknown key", "[tool.ciapp]\nintall = false", 3, "unknown setting 'intall'; did you mean"),
            ("a wrong type", "[tool.ciapp.limits]\nrun_s = 'x'", 3, "setting 'limits.run_s': expected"),
            ("a limit above", "[tool.ciapp]\nlimits = { test_s = 61 }", 3, "limits.test_s is 61.0; give"),
            ("no start", "[tool]\nciapp.unittest.start = 'no'", 3, f"unittest.start 'no' {NO_FOLDER}"),
            ("broken TOML", "[tool.ciapp\n", 2, "not valid TOML: Expected ']' at the end of a table"),
            ("no table", "[tool]\nciapp = 1", 3, "tool.ciapp is no table; write [tool.ciapp]"),
        ):
            with self.subTest(name):
                report = pipeline.push_commit(TESTS | {"pyproject.toml": f"# start = 'x'\n{text}"})
                self.assertEqual(Status.SETUP_FAILED, report.status)
                self.assertTrue(report.reason.startswith(f"pyproject.toml:{line}: {said}"), report.reason)

    def test_variables_that_no_interpreter_starts_with_are_the_commits_failure(self):
        report = Pipeline(self).push_commit(TESTS | {".ciapp.toml": "[env]\nPYTHONHOME = '/nowhere'"})
        self.assertEqual(Status.SETUP_FAILED, report.status, report.reason)

    def test_defaults_of_the_server_are_not_the_commits_to_correct(self):
        pipeline = Pipeline(self, repository={"team": {"project": {"instal": False}}})
        with self.assertRaisesRegex(SettingsError, "server's settings: unknown setting 'instal'"):
            pipeline.push_commit(TESTS)


if __name__ == "__main__":
    unittest.main()
