"""Pins of pushed commits, in a repository as a machine that went down leaves it."""

from __future__ import annotations

import unittest

from ciapp.errors import GitError
from ciapp.git import Repository
from ciapp.intake.pins import drop_pins, pin
from tests.support.git_repositories import WorkTree, git, new_bare_repository


class TestLocks(unittest.TestCase):
    def setUp(self) -> None:
        self.bare = new_bare_repository(self)
        tree = WorkTree(self, self.bare)
        self.commits = [tree.commit("First"), tree.commit("Second")]
        tree.push("HEAD:main")
        self.git = Repository(self.bare)

    def pins(self) -> list[str]:
        return git(self.bare, "for-each-ref", "--format=%(refname)", "refs/ciapp").split()

    def lock(self, *names: str) -> None:
        for name in names:
            (self.bare / f"{name}.lock").touch()

    def test_a_lock_that_a_killed_git_has_left_keeps_no_pin_from_being_made(self) -> None:
        pin(self.git, "record", self.commits)
        names = self.pins()
        self.assertEqual(2, len(names))
        drop_pins(self.git, "record")
        (self.bare / names[0]).parent.mkdir(parents=True, exist_ok=True)
        self.lock(*names)
        pin(self.git, "record", self.commits)
        self.assertEqual(names, self.pins())

    def test_what_cannot_be_pinned_and_locks_that_are_not_ours_are_left_alone(self) -> None:
        self.lock("refs/heads/main", "packed-refs")
        with self.assertRaises(GitError):
            pin(self.git, "record", ["ab" * 20])
        self.assertEqual(2, len(list(self.bare.rglob("*.lock"))))


if __name__ == "__main__":
    unittest.main()
