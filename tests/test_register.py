"""Taking a repository in: what of its past counts as seen, and what is tested."""

from __future__ import annotations

import unittest

from ciapp.errors import UsageError
from ciapp.intake.dispatcher import Dispatcher
from ciapp.intake.presence import Presence
from ciapp.intake.register import install_and_register, queue_commit
from ciapp.results.pushes import find_repository, seen_refs
from ciapp.results.runs import find_runs
from ciapp.settings import RepositorySettings, Settings
from tests.support.git_repositories import WorkTree, git, new_bare_repository, new_folder
from tests.support.ledgers import fresh_sqlite


class TestRegister(unittest.TestCase):
    def setUp(self) -> None:
        self.settings = Settings(
            state_dir=str(new_folder(self)),
            host="here",
            repository={"team": RepositorySettings(refs={"refs/heads/off": "off"})},
        )
        self.database = fresh_sqlite(self)
        self.database.migrate()
        self.bare = new_bare_repository(self)
        self.tree = WorkTree(self, self.bare)
        self.past = [self.tree.commit(f"Past {number}") for number in range(4)]
        self.tree.git("tag", "--annotate", "--message", "One", "v1", self.past[1])
        self.tree.push("main", "main:off", "v1")

    def install(self, **options: object) -> list[str]:
        lines = install_and_register(self.settings, self.database, self.bare, **options)
        presence = Presence()  # so that pushes start no dispatcher
        presence.announce(self.bare)
        self.addCleanup(presence.close)
        return lines

    def queued(self) -> list[str]:
        commits = git(self.bare, "rev-list", "--reverse", "--all").split()
        return [run.commit for run in find_runs(self.database, "team", commits)]

    def test_what_is_there_counts_as_seen_and_is_not_tested(self) -> None:
        self.assertEqual([f"hook installed in {self.bare}; pushes to it are tested as team"], self.install())
        self.assertEqual({"refs/heads/main", "refs/tags/v1"}, set(seen_refs(self.database, 1)))
        new = self.tree.commit("New")
        self.tree.push("main")
        Dispatcher(self.settings, self.database, lambda runs: None).step()
        self.assertEqual([new], self.queued())

    def test_the_tips_of_branches_and_tags_are_tested_on_request(self) -> None:
        self.assertEqual("2 of its commits are queued", self.install(test_tips=True)[-1])
        self.assertEqual({self.past[1], self.past[3]}, set(self.queued()))
        [run] = find_runs(self.database, "team", [self.past[1]])
        self.assertEqual(("refs/tags/v1",), run.refs)

    def test_all_since_a_revision_is_tested_on_request(self) -> None:
        self.assertEqual("2 of its commits are queued", self.install(test_since=self.past[1])[-1])
        self.assertEqual(self.past[2:], self.queued())

    def test_a_revision_that_is_none_is_refused_before_anything_is_done(self) -> None:
        with self.assertRaisesRegex(UsageError, "has no revision 'nope'; give --test-since a commit of it"):
            self.install(test_since="nope")
        self.assertFalse((self.bare / "ciapp").exists())
        self.assertFalse((self.bare / "hooks" / "post-receive").exists())

    def test_asking_again_for_what_was_tested_asks_for_nothing(self) -> None:
        self.install(test_tips=True)
        self.assertEqual("0 of its commits are queued", self.install(test_tips=True)[-1])

    def test_an_empty_repository_can_be_taken_in_with_its_tips(self) -> None:
        self.bare = new_bare_repository(self, "empty.git")
        self.assertEqual("0 of its commits are queued", self.install(test_tips=True)[-1])

    def test_a_commit_that_only_another_host_has_is_asked_for_there(self) -> None:
        self.install()
        repository = find_repository(self.database, "team")
        with self.assertRaisesRegex(UsageError, f"does not know commit {self.past[0][:12]}; .* on here"):
            queue_commit(self.database, repository, self.past[0], "there")
        self.assertTrue(queue_commit(self.database, repository, self.past[0], "here"))
        self.assertEqual([self.past[0]], self.queued())


if __name__ == "__main__":
    unittest.main()
