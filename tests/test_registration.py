"""ciapp/results/registration.py: one name for one git directory."""

from __future__ import annotations

import threading
import unittest
from pathlib import Path

from ciapp.errors import UsageError
from ciapp.results.pushes import KnownRepository, list_repositories, seen_refs
from ciapp.results.registration import check_name, names_of, register_repository
from ciapp.results.runs import find_runs
from tests.support.git_repositories import new_folder
from tests.support.ledgers import commit, fresh_postgresql, fresh_sqlite, push


class TestRegistration(unittest.TestCase):
    def setUp(self) -> None:
        self.database = fresh_sqlite(self)
        self.database.migrate()
        self.folder = new_folder(self)
        self.git_dir = self.folder / "team.git"
        self.git_dir.mkdir()

    def register(
        self, name: str, git_dir: Path | None = None, *, host: str = "here", moved: bool = False
    ) -> KnownRepository:
        return register_repository(
            self.database, name=name, host=host, git_dir=str(git_dir or self.git_dir), refs={}, moved=moved
        )

    def names(self) -> list[str]:
        return [one.name for one in list_repositories(self.database)]

    def test_another_name_is_given_to_the_same_history(self) -> None:
        first = self.register("first")
        push(self.database, first, commit(1))

        second = self.register("second")

        self.assertEqual((first.id, ["second"]), (second.id, self.names()))
        self.assertEqual(1, len(find_runs(self.database, "second", [commit(1).id])))
        self.assertEqual({"refs/heads/main": commit(1).id}, seen_refs(self.database, second.id))

    def test_a_path_through_a_link_leads_to_the_same_row(self) -> None:
        first = self.register("first")
        self.git_dir.rename(self.folder / "elsewhere.git")
        self.git_dir.symlink_to(self.folder / "elsewhere.git")

        self.assertEqual(
            ["first"], names_of(self.database, host="here", git_dir=f"{self.folder}/elsewhere.git")
        )
        check_name(self.database, name="first", host="here", git_dir=f"{self.folder}/elsewhere.git")
        second = self.register("second", self.folder / "elsewhere.git")

        self.assertEqual((first.id, ["second"]), (second.id, self.names()))
        self.assertEqual(f"{self.folder}/elsewhere.git", second.git_dir)

    def test_the_same_path_on_another_host_is_another_repository(self) -> None:
        self.register("first")
        self.register("second", host="there")

        self.assertEqual(["first", "second"], self.names())

    def test_a_name_that_another_repository_has_is_refused(self) -> None:
        self.register("first")
        self.register("second", self.folder / "second.git")
        for moved in (False, True):
            with (
                self.subTest(moved=moved),
                self.assertRaisesRegex(UsageError, "a history of its own as first"),
            ):
                self.register("second", moved=moved)
        with self.assertRaisesRegex(UsageError, "or add --moved if that repository is here now"):
            self.register("second", self.folder / "third.git")

        self.assertEqual(["first", "second"], self.names())

    def test_a_repository_that_moved_takes_its_name_along(self) -> None:
        first = self.register("first")

        moved = self.register("first", self.folder / "moved.git", host="there", moved=True)

        self.assertEqual((first.id, "there", ["first"]), (moved.id, moved.host, self.names()))

    def test_of_two_names_from_long_ago_one_is_to_be_chosen(self) -> None:
        self.register("first")
        (self.folder / "link.git").mkdir()
        self.register("second", self.folder / "link.git")
        (self.folder / "link.git").rmdir()
        (self.folder / "link.git").symlink_to(self.git_dir)

        with self.assertRaisesRegex(
            UsageError, "under several names, first, second; give --name one of them"
        ):
            self.register("third")
        self.assertEqual("second", self.register("second").name)

    def test_two_who_register_at_once_make_one_row(self) -> None:
        for open_ledger in (fresh_sqlite, fresh_postgresql):
            with self.subTest(open_ledger.__name__):
                self.database = open_ledger(self)
                self.database.migrate()
                names = [f"name-{number}" for number in range(6)]
                threads = [threading.Thread(target=self.register, args=(name,)) for name in names]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

                self.assertEqual(1, len(self.names()), self.names())


if __name__ == "__main__":
    unittest.main()
