"""Taking a repository in: what of its past counts as seen, and what is tested."""

from __future__ import annotations

import shutil
import unittest
from datetime import UTC, datetime

import msgspec
from sqlalchemy import delete, select

from ciapp.errors import UsageError
from ciapp.intake.dispatcher import Dispatcher
from ciapp.intake.hook import remove_hook
from ciapp.intake.presence import Presence
from ciapp.intake.register import install_and_register, queue_commit
from ciapp.results import schema
from ciapp.results.history import resolve_revision
from ciapp.results.pushes import KnownRepository, find_repository, has_commit, list_repositories, seen_refs
from ciapp.results.report import State
from ciapp.results.runs import cancel_run, find_runs
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
        self.elsewhere = msgspec.structs.replace(self.settings, host="there")
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
        self.assertEqual("2 runs of its commits are queued", self.install(test_tips=True)[-1])
        self.assertEqual({self.past[1], self.past[3]}, set(self.queued()))
        [run] = find_runs(self.database, "team", [self.past[1]])
        self.assertEqual(("refs/tags/v1",), run.refs)

    def test_all_since_a_revision_is_tested_on_request(self) -> None:
        self.assertEqual("2 runs of its commits are queued", self.install(test_since=self.past[1])[-1])
        self.assertEqual(self.past[2:], self.queued())

    def test_annotated_tags_are_known_on_other_hosts_by_name_and_by_id(self) -> None:
        self.install()
        self.tree.git("tag", "--annotate", "--message", "Two", "v2", self.past[3])
        self.tree.git("tag", "--annotate", "--message", "Two of two", "nested", "v2")
        self.tree.push("v2", "nested")
        Dispatcher(self.settings, self.database, lambda runs: None).step()
        repository = find_repository(self.database, "team")

        def resolve(revision: str) -> str:
            return resolve_revision(self.database, repository, revision, "there")

        for name, commit in (("v1", self.past[1]), ("v2", self.past[3]), ("nested", self.past[3])):
            tag = git(self.bare, "rev-parse", name)
            for revision in (name, f"tags/{name}", f"{name}^{{}}", f"{name}^0", tag, tag[:10]):
                with self.subTest(revision):
                    self.assertEqual(commit, resolve(revision))
        self.assertEqual(
            {"refs/heads/main", "refs/tags/v1", "refs/tags/v2", "refs/tags/nested"},
            set(seen_refs(self.database, repository.id)),
        )
        self.install(test_tips=True)
        self.assertEqual(self.past[1], resolve("v1"))

    def test_annotated_tags_of_an_older_ledger_are_known_once_the_hook_is_installed_again(self) -> None:
        self.install()
        repository = find_repository(self.database, "team")
        with self.database.write() as connection:
            connection.execute(delete(schema.refs).where(schema.refs.c.name == "refs/tags/v1^{}"))
        self.tree.git("tag", "--annotate", "--message", "Later", "later", self.past[2])
        self.tree.push("later")

        self.install()

        self.assertEqual(self.past[1], resolve_revision(self.database, repository, "v1", "there"))
        self.assertEqual({"refs/heads/main", "refs/tags/v1"}, set(seen_refs(self.database, repository.id)))

    def test_a_tag_that_is_moved_or_deleted_takes_its_commit_along(self) -> None:
        self.install()
        repository = find_repository(self.database, "team")
        peeled = select(schema.refs.c.value).where(schema.refs.c.name == "refs/tags/v1^{}")
        for tagging, pushing, behind in (
            (("--annotate", "--force", "--message", "x", "v1", self.past[2]), "+v1", {self.past[2]}),
            (("--force", "v1", self.past[3]), "+v1", set()),
            (("--force", "--annotate", "--message", "x", "v1", self.past[2]), "+v1", {self.past[2]}),
            (("--delete", "v1"), ":v1", set()),
        ):
            self.tree.git("tag", *tagging)
            self.tree.push(pushing)
            Dispatcher(self.settings, self.database, lambda runs: None).step()
            with self.subTest(tagging), self.database.read() as connection:
                self.assertEqual(behind, set(connection.scalars(peeled)))
                if pushing == "+v1":
                    self.assertEqual(tagging[-1], resolve_revision(self.database, repository, "v1", "there"))

    def test_a_revision_that_is_none_is_refused_before_anything_is_done(self) -> None:
        with self.assertRaisesRegex(UsageError, "has no revision 'nope'; give --test-since a commit of it"):
            self.install(test_since="nope")
        self.assertFalse((self.bare / "ciapp").exists())
        self.assertFalse((self.bare / "hooks" / "post-receive").exists())

    def test_asking_again_for_what_was_tested_asks_for_nothing(self) -> None:
        self.install(test_tips=True)
        self.assertEqual("0 runs of its commits are queued", self.install(test_tips=True)[-1])

    def test_a_linked_work_tree_is_said_to_be_one(self) -> None:
        linked = new_folder(self) / "linked"
        git(self.bare, "worktree", "add", "--quiet", "--detach", str(linked), "main")

        said = install_and_register(self.settings, self.database, linked)

        self.assertEqual(f"hook installed in {self.bare}; pushes to it are tested as team", said[0])
        self.assertEqual(f"{linked} is one of its work trees; all of them share the hook", said[1])

    def test_another_name_is_said_and_each_push_is_recorded_once(self) -> None:
        self.install(name="first", test_tips=True)
        self.settings = msgspec.structs.replace(self.settings, repository={"first": RepositorySettings()})

        said = self.install(name="second")

        self.assertEqual(f"hook installed in {self.bare}; pushes to it are tested as second", said[0])
        self.assertIn("it was first: its runs and reports are second's now", said[1])
        self.assertIn("call it [repository.second] there", said[2])
        self.assertEqual(["second"], [one.name for one in list_repositories(self.database)])
        self.assertEqual(2, len(find_runs(self.database, "second", [self.past[1], self.past[3]])))
        skipped = self.tree.commit("New")
        self.tree.push("-o", "ci.skip", "main")
        Dispatcher(self.settings, self.database, lambda runs: None).step()
        self.assertEqual([], find_runs(self.database, "second", [skipped]))
        self.assertTrue(has_commit(self.database, 1, skipped))

    def test_the_name_that_the_ledger_has_is_kept_when_the_hook_was_removed(self) -> None:
        self.install(name="first")
        remove_hook(self.bare)

        self.assertEqual([f"hook installed in {self.bare}; pushes to it are tested as first"], self.install())

    def test_a_repository_with_two_names_from_long_ago_says_how_to_end_that(self) -> None:
        self.install(name="first")
        with self.database.write() as connection:
            row = {"name": "second", "host": "here", "git_dir": str(self.bare)}
            connection.execute(schema.repositories.insert().values(**row, registered_at=datetime.now(UTC)))

        said = self.install()

        self.assertIn("tested as first", said[0])
        self.assertIn("has it as second as well; run `ciapp forget second`", said[1])

    def test_an_empty_repository_can_be_taken_in_with_its_tips(self) -> None:
        self.bare = new_bare_repository(self, "empty.git")
        self.assertEqual("0 runs of its commits are queued", self.install(test_tips=True)[-1])

    def test_a_commit_that_only_another_host_has_is_asked_for_there(self) -> None:
        self.install()
        repository = find_repository(self.database, "team")
        with self.assertRaisesRegex(UsageError, f"does not know commit {self.past[0][:12]}; .* on here"):
            queue_commit(self.elsewhere, self.database, repository, self.past[0])
        self.assertTrue(queue_commit(self.settings, self.database, repository, self.past[0]))
        self.assertEqual([self.past[0]], self.queued())

    def test_a_commit_is_queued_again_in_all_its_environments(self) -> None:
        self.install()
        repository, commit = self.push_matrix()
        self.assertEqual(["python3.10", "python3.13"], self.queued_environments(commit))
        self.assertFalse(queue_commit(self.settings, self.database, repository, commit))
        for settings in (self.settings, self.elsewhere):
            for run in find_runs(self.database, "team", [commit]):
                cancel_run(self.database, run.id)
            self.assertEqual([], self.queued_environments(commit))
            self.assertTrue(queue_commit(settings, self.database, repository, commit))
            self.assertEqual(["python3.10", "python3.13"], self.queued_environments(commit))

    def test_a_commit_is_queued_again_under_one_python(self) -> None:
        self.install()
        repository, commit = self.push_matrix()
        for run in find_runs(self.database, "team", [commit]):
            cancel_run(self.database, run.id)
        for version in ("3.13", "3.12"):
            self.assertTrue(queue_commit(self.settings, self.database, repository, commit, version))
            self.assertFalse(queue_commit(self.settings, self.database, repository, commit, version))
        self.assertEqual(["python3.13", "python3.12"], self.queued_environments(commit))

    def test_a_commit_that_was_not_tested_is_queued_as_it_asks_to_be(self) -> None:
        self.install()
        repository, skipped = self.push_matrix("-o", "ci.skip")
        with self.assertRaisesRegex(UsageError, "has no run, and what it asks for is known .* on here"):
            queue_commit(self.elsewhere, self.database, repository, skipped)
        self.assertTrue(queue_commit(self.settings, self.database, repository, skipped))
        self.assertEqual(["python3.10", "python3.13"], self.queued_environments(skipped))
        past = self.past[0]
        self.assertTrue(queue_commit(self.settings, self.database, repository, past, "3.12"))
        self.assertEqual(["python3.12"], self.queued_environments(past))

    def test_what_the_settings_ask_for_since_is_queued_beside_what_there_was(self) -> None:
        self.install(test_tips=True)
        repository, commit = find_repository(self.database, "team"), self.past[3]
        self.assertEqual(["default"], self.queued_environments(commit))
        asking = msgspec.structs.replace(
            self.settings, repository={"team": RepositorySettings(project={"python": ["3.12"]})}
        )
        self.assertTrue(queue_commit(asking, self.database, repository, commit))
        self.assertEqual(["default", "python3.12"], self.queued_environments(commit))

    def test_a_commit_that_git_has_lost_is_queued_as_it_was(self) -> None:
        self.install(test_tips=True)
        repository = find_repository(self.database, "team")
        [run] = find_runs(self.database, "team", [self.past[3]])
        cancel_run(self.database, run.id)
        shutil.rmtree(self.bare / "objects")
        (self.bare / "objects").mkdir()
        self.assertTrue(queue_commit(self.settings, self.database, repository, run.commit))
        self.assertEqual(["default"], self.queued_environments(run.commit))

    def push_matrix(self, *options: str) -> tuple[KnownRepository, str]:
        commit = self.tree.commit("Matrix", {".ciapp.toml": 'python = ["3.10", "3.13"]'})
        self.tree.push(*options, "main")
        Dispatcher(self.settings, self.database, lambda runs: None).step()
        return find_repository(self.database, "team"), commit

    def queued_environments(self, commit: str) -> list[str]:
        runs = find_runs(self.database, "team", [commit])
        return [run.environment for run in runs if run.state is State.QUEUED]


if __name__ == "__main__":
    unittest.main()
