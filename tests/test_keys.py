"""Keys of environments: what they depend on makes another one, and what they do not does not."""

from __future__ import annotations

import unittest
from pathlib import Path
from unittest import mock

import msgspec

from ciapp.settings import InstallSettings
from ciapp.testing import keys
from ciapp.testing.environment import default_python
from ciapp.testing.keys import Keys
from ciapp.testing.requirements import LocalProject, Requirements
from tests.support.git_repositories import new_folder

WANTED = Requirements(lines=("alpha",), wheels=("gamma-1.0-py3-none-any.whl",))
INSIDE = Path("/checkout")


class TestKeys(unittest.TestCase):
    def setUp(self) -> None:
        self.checkout = new_folder(self)
        self.wheel = self.checkout / WANTED.wheels[0]
        self.wheel.write_bytes(b"one")
        self.interpreter = default_python()
        self.install = InstallSettings(index_url="https://ann:secret@index.example.org/simple")

    def key(self, wanted: Requirements = WANTED, *, inside: Path = INSIDE, tree: str = "") -> str:
        return Keys(self.checkout, inside, self.interpreter, self.install).key(wanted, tree=tree)

    def assert_another(self, first: str, second: str) -> None:
        self.assertNotEqual(first, second)
        self.assertEqual(second, self.key())

    def test_a_key_follows_from_what_it_covers(self) -> None:
        self.assertEqual(self.key(), self.key())

    def test_another_python_is_another_environment(self) -> None:
        for changes in ({"version": "3.11.99"}, {"python": Path("/elsewhere/python3")}):
            with self.subTest(changes):
                before = self.key()
                self.interpreter = msgspec.structs.replace(self.interpreter, **changes)
                self.assert_another(before, self.key())

    def test_another_uv_is_another_environment(self) -> None:
        before = self.key()
        with mock.patch.object(keys, "uv_version", return_value="uv 99.0"):
            self.assert_another(before, self.key())

    def test_another_index_is_another_environment_and_another_password_is_not(self) -> None:
        before = self.key()
        self.install = InstallSettings(index_url="https://bob:other@index.example.org/simple")
        self.assertEqual(before, self.key())
        self.install = InstallSettings(index_url="https://ann:secret@index.example.org/other")
        self.assert_another(before, self.key())
        before = self.key()
        with mock.patch.dict("os.environ", {"UV_EXCLUDE_NEWER": "2020-01-01"}):
            self.assert_another(before, self.key())

    def test_another_content_of_a_wheel_is_another_environment(self) -> None:
        before = self.key()
        self.wheel.write_bytes(b"two")
        self.assert_another(before, self.key())

    def test_all_that_is_wanted_counts(self) -> None:
        for changes in (
            {"lines": ("alpha==2",)},
            {"constraints": ("alpha<3",)},
            {"options": ("--pre",)},
            {"projects": (LocalProject(path="."),)},
        ):
            with self.subTest(changes):
                self.assertNotEqual(self.key(), self.key(msgspec.structs.replace(WANTED, **changes)))

    def test_a_tree_counts_where_it_is_given_and_a_place_where_a_project_is_installed(self) -> None:
        self.assertNotEqual(self.key(), self.key(tree="1" * 40))
        self.assertEqual(self.key(), self.key(inside=Path("/elsewhere")))
        project = msgspec.structs.replace(WANTED, projects=(LocalProject(path="."),))
        self.assertNotEqual(self.key(project), self.key(project, inside=Path("/elsewhere")))


if __name__ == "__main__":
    unittest.main()
