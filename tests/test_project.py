"""A commit's own configuration, and what is said of a bad one."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from ciapp.errors import ProjectError, SettingsError
from ciapp.project import Project
from ciapp.settings import Limits
from ciapp.testing.project import load_project, lower_limits, read_project


class TestProject(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.checkout = Path(folder.name)

    def load(self, text: str | None = None, *, file: str = ".ciapp.toml", **defaults: object) -> Project:
        if text is not None:
            (self.checkout / file).write_text(text)
        return load_project(self.checkout, dict(defaults), Limits())

    def refused(self, text: str, sentence: str) -> None:
        with self.assertRaises(ProjectError) as caught:
            self.load(text)
        self.assertEqual(sentence, str(caught.exception))

    def folder(self, *names: str) -> None:
        for name in names:
            (self.checkout / name).mkdir(parents=True)

    def test_without_configuration_the_tests_folder_is_the_start(self):
        self.assertEqual(".", self.load().unittest.start)
        self.folder("test")
        self.assertEqual(("test", "test"), (self.load().unittest.start, self.load().unittest.top))
        self.folder("tests")
        self.assertEqual("tests", self.load().unittest.start)

    def test_a_start_folder_that_is_a_package_is_imported_from_the_root(self):
        self.folder("tests")
        (self.checkout / "tests" / "__init__.py").touch()
        self.assertEqual(("tests", "."), (self.load().unittest.start, self.load().unittest.top))

    def test_pyproject_may_hold_it_and_the_own_file_wins(self):
        self.folder("spec", "own")
        self.load('[tool.ciapp.unittest]\nstart = "spec"\n', file="pyproject.toml")
        self.assertEqual("spec", self.load().unittest.start)
        self.assertEqual("own", self.load('[unittest]\nstart = "own"').unittest.start)

    def test_the_servers_defaults_stand_where_the_commit_says_nothing(self):
        self.folder("spec")
        project = self.load(
            '[unittest]\npattern = "check_*.py"', unittest={"start": "spec", "pattern": "x"}, env={"A": "1"}
        )
        self.assertEqual(("spec", "check_*.py"), (project.unittest.start, project.unittest.pattern))
        self.assertEqual({"A": "1"}, project.env)

    def test_what_to_install_is_auto_a_list_or_false(self):
        self.assertEqual("auto", self.load().install)
        self.assertEqual(["-e", "."], self.load('install = ["-e", "."]').install)
        self.assertIs(False, self.load("install = false").install)
        self.assertIs(False, self.load("", install=False).install)
        self.refused(
            "\ninstall = 'all'",
            ".ciapp.toml:2: setting 'install': give \"auto\", false, or a list of arguments of"
            " `uv pip install`",
        )
        self.refused(
            "install = [3]", ".ciapp.toml:1: setting 'install[0]': expected `str`, got `int`; correct it"
        )

    def test_versions_of_python_are_a_list_that_the_commit_or_the_server_gives(self):
        self.assertEqual([], self.load().python)
        self.assertEqual(["3.8"], self.load('[tool.ciapp]\npython = ["3.8"]', file="pyproject.toml").python)
        self.assertEqual(["3.10", "3.13"], self.load('python = ["3.10", "3.13"]').python)
        self.assertEqual(["3.9"], self.load("", python=["3.9"]).python)
        self.assertEqual([], self.load("python = []", python=["3.9"]).python)

    def test_versions_of_python_that_cannot_be_are_refused(self):
        for versions, said in {
            '"3.11"': "setting 'python': expected `array`, got `str`; correct it",
            "[3.11]": "setting 'python[0]': expected `str`, got `float`; correct it",
            '["3"]': """python has '3'; give versions as "3.11\"""",
            '["3.11.7"]': """python has '3.11.7'; give versions as "3.11\"""",
            '["../3.11"]': """python has '../3.11'; give versions as "3.11\"""",
            '["3.1"]': "python has 3.1; the oldest that is supported is 3.8",
            '["3.11", "3.10", "3.11"]': "python has 3.11 twice; remove one",
            str([f"3.{minor}" for minor in range(10, 23)]): "python has 13 versions; give at most 12",
        }.items():
            with self.subTest(versions):
                self.refused(f"\npython = {versions}", f".ciapp.toml:2: {said}")

    def test_it_is_read_from_elsewhere_as_from_a_checkout(self):
        files = {"pyproject.toml": '[tool.ciapp]\npython = ["3.12"]\nunittest.start = "nowhere"'}
        self.assertEqual(["3.12"], read_project(files.get, {}, Limits()).python)
        with self.assertRaisesRegex(ProjectError, r"^\.ciapp\.toml:1: unknown setting 'pythons'"):
            read_project((files | {".ciapp.toml": "pythons = 3"}).get, {}, Limits())

    def test_an_unknown_key_is_said_with_file_and_line(self):
        self.refused(
            "\n[unittest]\npatern = 'x'",
            ".ciapp.toml:3: unknown setting 'unittest.patern'; did you mean 'pattern'?",
        )

    def test_a_wrong_type_is_said_with_file_and_line(self):
        self.refused(
            "[limits]\nrun_s = 'long'",
            ".ciapp.toml:2: setting 'limits.run_s': expected `float`, got `str`; correct it",
        )

    def test_a_limit_above_the_servers_is_refused(self):
        self.refused(
            "[limits]\ntest_s = 61", ".ciapp.toml:2: limits.test_s is 61.0; give more than 0 and at most 60.0"
        )
        self.refused(
            "[limits]\ntest_s = 0", ".ciapp.toml:2: limits.test_s is 0.0; give more than 0 and at most 60.0"
        )

    def test_a_limit_below_the_servers_holds(self):
        limits = lower_limits(Limits(), self.load("[limits]\ntest_s = 5"))
        self.assertEqual((5.0, Limits().run_s), (limits.test_s, limits.run_s))

    def test_a_start_folder_that_is_not_there_or_outside_is_refused(self):
        self.refused(
            "[unittest]\nstart = 'nowhere'",
            ".ciapp.toml:2: unittest.start 'nowhere' is no folder of the commit; name one",
        )
        for outside in ("..", "/etc", "a/../../b"):
            with self.subTest(outside), self.assertRaisesRegex(ProjectError, "leads out of the checkout"):
                self.load(f"[unittest]\nstart = '{outside}'")

    def test_broken_toml_is_said_with_its_line(self):
        self.refused("[unittest]\nstart = ]", ".ciapp.toml:2: not valid TOML: Invalid value (column 9)")
        self.refused(
            '[unittest]\nstart = "tests\n\n',
            r".ciapp.toml:2: not valid TOML: Illegal character '\n' (column 15)",
        )
        self.refused(
            "[unittest]\nstart = [\n\n",
            ".ciapp.toml:2: not valid TOML: Invalid value (the file ends there)",
        )

    def test_pyproject_is_held_to_the_same_with_its_own_lines(self):
        other = '[tool.other]\npatern = 1\nstart = """\n[tool.ciapp]\npatern = 2"""\n'
        no_folder = "unittest.start 'no' is no folder of the commit; name one"
        for text, line, said in (
            ("[tool.ciapp.unittest]\npatern = 'x'", 7, "unknown setting 'unittest.patern'; did you mean"),
            ("[tool]\nciapp.install = 3", 7, "setting 'install': give \"auto\", false, or a list"),
            ("[tool.ciapp]\nlimits.run_s = 1801", 7, "limits.run_s is 1801.0; give more than 0 and at"),
            ("[tool.ciapp]\n\nunittest = { start = 'no' }", 8, no_folder),
            ("[tool.ciapp]\nx = [", 7, "not valid TOML: Invalid value (the file ends there)"),
            ("[tool]\nciapp = 3", 7, "tool.ciapp is no table; write [tool.ciapp]"),
        ):
            with self.subTest(text), self.assertRaises(ProjectError) as caught:
                self.load(other + text, file="pyproject.toml")
            self.assertTrue(str(caught.exception).startswith(f"pyproject.toml:{line}: {said}"))

    def test_what_would_break_the_worker_is_the_commits_failure(self):
        no_folder = "is no folder of the commit; name one"
        long, much = "x" * 300, "env holds more than 65536 bytes; put some of it into a file"
        for text, line, said in (
            (f"[unittest]\nstart = '{long}'", 2, f"unittest.start '{long}' {no_folder}"),
            (f"[unittest]\ntop = '{long}'", 2, f"unittest.top '{long}' {no_folder}"),
            ('[unittest]\nstart = "\\u0000"', 2, rf"unittest.start '\x00' {no_folder}"),
            (f"[env]\nA = '{'x' * (64 << 10)}'", 1, much),
            (f"[env]\nA = '{'{checkout}' * 999}'", 1, much),
        ):
            with self.subTest(text[:40]):
                self.refused(text, f".ciapp.toml:{line}: {said}")
        for text in ("a = " + "1" * 5000, "a = " + "[" * 5000):
            with self.subTest(text[:40]), self.assertRaisesRegex(ProjectError, r"^\.ciapp\.toml"):
                self.load(text)

    def test_a_start_folder_that_is_a_link_out_of_the_checkout_is_none(self):
        (self.checkout / "out").symlink_to("/usr")
        self.refused(
            "[unittest]\nstart = 'out'",
            ".ciapp.toml:2: unittest.start 'out' is no folder of the commit; name one",
        )

    def test_the_servers_defaults_are_the_servers_to_correct(self):
        for defaults, sentence in (
            ({"instal": False}, "unknown setting 'instal'; did you mean 'install'?"),
            ({"limits": {"test_s": 61}}, "limits.test_s is 61.0; give more than 0 and at most 60.0"),
        ):
            with self.subTest(sentence), self.assertRaises(SettingsError) as caught:
                self.load("", **defaults)
            said = str(caught.exception)
            self.assertEqual(f"[repository.NAME.project] in the server's settings: {sentence}", said)
        with self.assertRaises(ProjectError) as missing:
            self.load("[unittest]\npattern = 'x'", unittest={"start": "spec"})
        self.assertEqual(
            ".ciapp.toml: unittest.start 'spec', which the server's settings have for this repository, is no "
            "folder of the commit; name one",
            str(missing.exception),
        )

    def test_a_variable_that_is_no_text_is_said_with_its_name(self):
        self.refused(
            "[env]\nA = 'x'\nB = 3",
            ".ciapp.toml:3: setting 'env.B': expected `str`, got `int`; correct it",
        )

    def test_a_name_that_is_no_environment_variable_is_refused(self):
        with self.assertRaisesRegex(
            ProjectError, r"\.ciapp\.toml:2: 'A-B' cannot be an environment variable"
        ):
            self.load("[env]\nA-B = 'x'")

    def test_a_link_a_folder_a_fifo_and_a_huge_file_are_refused_unread(self):
        file = self.checkout / ".ciapp.toml"
        secret = self.checkout / "secret"
        secret.write_text("password = 'x'")
        makers = {
            "link": lambda: file.symlink_to(secret),
            "folder": file.mkdir,
            "fifo": lambda: os.mkfifo(file),
            "huge": lambda: file.write_text("#" * (2 << 20)),
        }
        for name, make in makers.items():
            with self.subTest(name):
                make()
                with self.assertRaises(ProjectError) as caught:
                    self.load()
                self.assertNotIn("password", str(caught.exception))
                file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()


if __name__ == "__main__":
    unittest.main()
