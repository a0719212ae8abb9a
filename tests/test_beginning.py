"""`ciapp init`: a first configuration, from what is found in a project."""

from __future__ import annotations

import json
import re
import tomllib
import unittest

from jsonschema import Draft202012Validator

from ciapp.errors import UsageError
from ciapp.project import Project
from ciapp.settings import Limits
from ciapp.testing.beginning import Layout, find_layout, supported_minors, write_configuration
from ciapp.testing.project import load_project
from ciapp.testing.schema import FILE
from ciapp.testing.tree import find_tree
from tests.support.git_repositories import new_folder
from tests.test_desk import Desk


class TestLayout(unittest.TestCase):
    def test_where_tests_are_looked_for_anyway_need_not_be_said(self) -> None:
        for names in (
            ["tests/test_a.py", "other/test_b.py"],
            ["test/unit/test_a.py", "test/unit/__init__.py"],
            ["test_a.py", "a.py"],
            ["a.py"],
            [],
        ):
            self.assertEqual(Layout(), find_layout(names), names)

    def test_another_folder_and_another_pattern_are_said(self) -> None:
        self.assertEqual(Layout(start="spec"), find_layout(["spec/test_a.py", "spec/deep/test_b.py"]))
        self.assertEqual(Layout(pattern="*_test.py"), find_layout(["tests/a_test.py", "tests/help.py"]))
        names = ["src/a/ATest.py", "src/BTest.py"]
        self.assertEqual(Layout(start="src", pattern="*Test.py"), find_layout(names))

    def test_tests_in_a_package_are_imported_from_above_it(self) -> None:
        names = ["src/app/__init__.py", "src/app/tests/__init__.py", "src/app/tests/test_a.py"]
        self.assertEqual(Layout(start="src/app/tests", top="src"), find_layout(names))
        names = ["app/__init__.py", "app/tests/__init__.py", "app/tests/test_a.py"]
        self.assertEqual(Layout(start="app/tests"), find_layout(names))


class TestVersions(unittest.TestCase):
    def test_what_requires_python_allows(self) -> None:
        for said, wanted in {
            ">=3.11": [11, 12, 13, 14],
            ">= 3.10, <3.13": [10, 11, 12],
            ">=3.9.2,<4": [9, 10, 11, 12, 13, 14],
            ">3.11,!=3.13.*,!=3.12": [11, 12, 14],
            ">3.11.2,<3.12.5,!=3.12.1": [11, 12],
            "~=3.12": [12, 13, 14],
            "~=3.12.1": [12],
            "==3.11.*": [11],
            ">=3,<4.0": [8, 9, 10, 11, 12, 13, 14],
            "<=3.9": [8, 9],
            ">=2.7": [],
            "what": [],
        }.items():
            self.assertEqual(wanted, supported_minors(said), said)


class TestWriting(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)

    def init(self, *, force: bool = False, schema: bool = False) -> list[str]:
        return write_configuration(find_tree(self.folder), force=force, with_schema=schema)

    @property
    def text(self) -> str:
        return (self.folder / ".ciapp.toml").read_text()

    def load(self) -> Project:
        return load_project(self.folder, {}, Limits())

    def test_what_is_written_says_what_held_without_it(self) -> None:
        self.write({"tests/test_a.py": "", "requirements.txt": "six\n"})
        before = self.load()

        self.assertEqual([f"{self.folder / '.ciapp.toml'} is written; `ciapp run` tries it."], self.init())

        self.assertEqual(before, self.load())
        self.assertIn('"auto" makes of this project: installed: requirements.txt.\n', self.text)

    def test_its_comments_are_settings_that_can_be_used(self) -> None:
        self.write(
            {"tests/test_a.py": "", "pyproject.toml": '[project]\nname = "a"\nrequires-python = ">=3.12"'}
        )
        self.init(schema=True)

        said = re.sub(r"(?m)^# (?=\[|[\w]+ = )", "", self.text)

        self.assertIn('\npython = ["3.12", "3.13", "3.14"]\n', said)
        data = tomllib.loads(said)
        self.assertEqual({"python", "install", "reuse", "unittest", "env", "limits"}, set(data))
        Draft202012Validator(json.loads(FILE.read_text())).validate(data)

    def test_sources_are_on_the_path_unless_the_project_is_installed(self) -> None:
        self.write({"src/a.py": "", "tests/test_a.py": ""})
        self.init()
        self.assertEqual({"PYTHONPATH": "{checkout}/src"}, self.load().env)

        self.write({"setup.py": ""})
        self.init(force=True)
        self.assertEqual({}, self.load().env)

    def test_nothing_is_overwritten_unless_it_is_asked_for(self) -> None:
        self.write({".ciapp.toml": "install = false\n"})
        with self.assertRaisesRegex(UsageError, r"\.ciapp\.toml exists; --force replaces it"):
            self.init()
        self.assertEqual("install = false\n", self.text)
        self.init(force=True)
        self.assertIn('install = "auto"', self.text)

    def test_a_table_in_pyproject_is_a_configuration_too(self) -> None:
        self.write({"pyproject.toml": "[tool.ciapp]\ninstall = false\n"})
        with self.assertRaisesRegex(UsageError, r"has \[tool\.ciapp\]; --force writes \.ciapp\.toml"):
            self.init()
        self.assertFalse((self.folder / ".ciapp.toml").exists())

    def test_a_link_is_replaced_and_not_written_through(self) -> None:
        outside = new_folder(self) / "file"
        outside.write_text("theirs")
        (self.folder / ".ciapp.toml").symlink_to(outside)
        with self.assertRaises(UsageError):
            self.init()
        self.init(force=True)
        self.assertEqual("theirs", outside.read_text())
        self.assertFalse((self.folder / ".ciapp.toml").is_symlink())

    def test_the_schema_is_named_in_the_first_line(self) -> None:
        self.init(schema=True)
        self.assertEqual("#:schema ./.ciapp.schema.json", self.text.splitlines()[0])
        self.assertEqual(FILE.read_text(), (self.folder / ".ciapp.schema.json").read_text())

        self.write({".ciapp.toml": "install = false\n"})
        self.assertEqual(
            "Let the first line of .ciapp.toml be: #:schema ./.ciapp.schema.json", self.init(schema=True)[-1]
        )
        self.assertEqual("install = false\n", self.text)

    def test_odd_names_are_written_so_that_they_are_read_back(self) -> None:
        self.write({'od"d \\ {name}/test_a.py': ""})
        self.init()
        self.assertEqual('od"d \\ {name}', self.load().unittest.start)

    def test_a_broken_pyproject_is_said_in_one_line(self) -> None:
        self.write({"pyproject.toml": "[project\n"})
        self.init()
        self.assertRegex(
            self.text, r'(?m)^# What the tests need\. "auto" makes .*what fails: pyproject\.toml'
        )
        tomllib.loads(self.text)


class TestCommand(Desk):
    def test_a_project_runs_with_what_was_written(self) -> None:
        self.write(
            {
                "src/app/__init__.py": "VALUE = 3",
                "src/app/tests/__init__.py": "",
                "src/app/tests/calc_test.py": "import unittest, app\nclass TestApp(unittest.TestCase):\n"
                "    def test_value(self): self.assertEqual(3, app.VALUE)\n",
            }
        )
        self.ciapp("run", code=1)  # no tests where they are looked for

        self.ciapp("init", code=0)

        self.assertEqual({"test_value": "passed"}, self.outcomes())
        self.assertEqual(2, self.ciapp("init").code)


del Desk

if __name__ == "__main__":
    unittest.main()
