"""The schema that editors have of `.ciapp.toml` says what the program that reads it says."""

from __future__ import annotations

import json
import re
import tomllib
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft4Validator, Draft202012Validator

from ciapp.errors import ProjectError
from ciapp.project import Project
from ciapp.settings import Limits
from ciapp.testing.project import load_project
from ciapp.testing.schema import DESCRIPTIONS, FILE, project_schema, to_text
from tests.support.git_repositories import new_folder

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
GOOD = (
    "",
    'python = ["3.8", "3.13", "3.20"]',
    "python = []",
    'install = "auto"',
    "install = false",
    "install = true",
    "reuse = false",
    'install = ["-r", "requirements.txt", "-e", ".[test]"]',
    '[unittest]\nstart = "tests"\npattern = "*_test.py"\ntop = "."',
    '[env]\nPYTHONPATH = "{checkout}/src"\n_x1 = ""',
    "[limits]\ntest_s = 0.5\nrun_s = 60\nmemory_mib = 100",
)
BAD = (
    'pythons = ["3.8"]',
    'python = "3.8"',
    'python = ["2.7"]',
    'python = ["3.7"]',
    'python = ["3.011"]',
    'python = ["3.11.2"]',
    'python = ["3.11", "3.11"]',
    f"python = {json.dumps([f'3.{number}' for number in range(10, 23)])}",
    "python = [3.11]",
    'install = "all"',
    "install = 1",
    'reuse = "no"',
    "install = [1]",
    'unittest = "tests"',
    "[unittest]\nstart = 1",
    '[unittest]\npatern = "x"',
    "[env]\nA = 1",
    '[env]\nA-B = "x"',
    '[env]\n1A = "x"',
    "[limits]\ntest_s = 0",
    "[limits]\nrun_s = -1",
    "[limits]\nmemory_mib = 0.5",
    "[limits]\nmemory_mib = 0",
    '[limits]\ntest_s = "60"',
    "[limits]\nprocesses = 5",
)


def keys_of(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, as "limits.test_s"."""
    for field in msgspec.structs.fields(struct):
        yield prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys_of(field.type, f"{prefix}{field.name}.")


class TestSchema(unittest.TestCase):
    schema: dict[str, Any] = json.loads(FILE.read_text("utf-8"))

    def says(self, text: str) -> bool:
        """Whether the schema takes a configuration, under both of its drafts."""
        data = tomllib.loads(text)
        taken = Draft202012Validator(self.schema).is_valid(data)
        self.assertEqual(taken, Draft4Validator(self.schema).is_valid(data), text)
        return taken

    def program_says(self, text: str) -> bool:
        folder = new_folder(self)
        (folder / "tests").mkdir()
        (folder / "requirements.txt").touch()
        (folder / "setup.py").touch()
        (folder / ".ciapp.toml").write_text(text)
        try:
            load_project(folder, {}, Limits())
        except ProjectError:
            return False
        return True

    def test_the_file_is_what_the_types_make(self) -> None:
        self.assertEqual(
            to_text(project_schema()),
            FILE.read_text("utf-8"),
            "write it anew: python -m ciapp.testing.schema",
        )

    def test_it_is_a_schema_of_the_draft_that_it_names_and_of_the_one_that_taplo_knows(self) -> None:
        Draft202012Validator.check_schema(self.schema)
        Draft4Validator.check_schema(self.schema)
        self.assertEqual(Draft202012Validator.META_SCHEMA["$id"], self.schema["$schema"])
        self.assertNotIn("$ref", FILE.read_text("utf-8"))

    def test_each_key_has_a_description_and_nothing_else_has(self) -> None:
        self.assertEqual(sorted(keys_of(Project)), sorted(DESCRIPTIONS))

    def test_it_takes_what_the_program_takes(self) -> None:
        for text in GOOD:
            with self.subTest(text):
                self.assertTrue(self.program_says(text))
                self.assertTrue(self.says(text))

    def test_it_refuses_what_the_program_refuses(self) -> None:
        for text in BAD:
            with self.subTest(text):
                self.assertFalse(self.program_says(text))
                self.assertFalse(self.says(text))

    def test_it_takes_the_readmes_example(self) -> None:
        [example] = [
            one for one in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "[unittest]" in one
        ]

        self.assertTrue(self.says(example))


if __name__ == "__main__":
    unittest.main()
