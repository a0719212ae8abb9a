"""Revisions as people write them, and the line of commits behind one."""

from __future__ import annotations

import unittest

from ciapp.errors import NoSuchRunError, UsageError
from ciapp.results.history import NotInLedgerError, commit_log, resolve_revision, runs_of
from ciapp.results.pushes import KnownRepository
from ciapp.results.registration import register_repository
from tests.support.git_repositories import WorkTree, git, new_bare_repository
from tests.support.ledgers import commit, fresh_sqlite, push


class TestLog(unittest.TestCase):
    def setUp(self):
        self.database = fresh_sqlite(self)
        self.database.migrate()
        self.bare = new_bare_repository(self)
        self.tree = WorkTree(self, self.bare)
        self.repository = self.register("here", str(self.bare))

    def register(self, host: str, git_dir: str, name: str = "team") -> KnownRepository:
        return register_repository(self.database, name=name, host=host, git_dir=git_dir, refs={})

    def resolve(self, revision: str) -> str:
        return resolve_revision(self.database, self.repository, revision, "here")

    def test_a_revision_is_what_git_takes(self):
        first, second = self.tree.commit("One"), self.tree.commit("Two")
        self.tree.push("HEAD:main")
        self.assertEqual(
            [second, first, second, first], [self.resolve(r) for r in ("HEAD", "main~1", "main", first[:8])]
        )

    def test_head_is_the_only_branch_where_it_names_one_that_was_never_pushed(self):
        only = self.tree.commit()
        self.tree.push("HEAD:trunk")
        self.assertEqual(
            [only] * 3, [self.resolve(revision) for revision in ("HEAD", "HEAD~0", "@^{commit}")]
        )
        self.tree.push("HEAD:other")
        mend = f"run `git -C {self.bare} symbolic-ref HEAD refs/heads/other`"
        for revision in ("HEAD", "@", "HEAD^"):
            with self.subTest(revision), self.assertRaises(UsageError) as refused:
                self.resolve(revision)
            said = "HEAD of team names refs/heads/main, which is not there; give one of its branches"
            self.assertEqual(f"{said}, other, trunk, or {mend}", str(refused.exception))
        git(self.bare, "symbolic-ref", "HEAD", "refs/heads/other")
        self.assertEqual(only, self.resolve("HEAD"))
        with self.assertRaisesRegex(
            UsageError, r"team has no revision 'HEAD\^'; its branches are other, trunk"
        ):
            self.resolve("HEAD^")

    def test_an_unknown_revision_and_an_option_are_refused(self):
        self.tree.commit()
        self.tree.push("HEAD:main")
        for revision in ("nowhere", "--all", "main\nmain", "main~5"):
            with self.subTest(revision), self.assertRaisesRegex(UsageError, "has no revision"):
                self.resolve(revision)

    def test_a_revision_that_names_a_tree_or_a_blob_says_so(self):
        self.tree.commit(files={"a file": "x"})
        self.tree.git("tag", "light", "main:a file")
        self.tree.git("tag", "--annotate", "--message", "A file", "heavy", "main:a file")
        self.tree.push("main", "light", "heavy")
        for revision, kind in (
            ("main^{tree}", "tree"),
            ("main:a file", "blob"),
            ("light", "blob"),
            ("heavy", "blob"),
        ):
            said = f"'{revision}' names a {kind} of team, not a commit; there is nothing to test"
            with self.subTest(revision), self.assertRaises(UsageError) as refused:
                self.resolve(revision)
            self.assertEqual(said, str(refused.exception))

    def test_a_repository_elsewhere_is_known_by_ids_and_branches(self):
        there = self.register("there", "/srv/far.git", "far")
        push(self.database, there, commit(0xABCDE1), commit(0xABCDE2, parents=(commit(0xABCDE1).id,)))

        def resolve(revision: str) -> str:
            return resolve_revision(self.database, there, revision, "here")

        self.assertEqual(commit(0xABCDE2).id, resolve("main"))
        self.assertEqual(commit(0xABCDE1).id, resolve(commit(0xABCDE1).id))
        with self.assertRaisesRegex(UsageError, "several commits"):
            resolve("0000")
        self.assertEqual(commit(0xABCDE2).id, resolve("HEAD"))
        self.assertEqual(commit(0xABCDE1).id, resolve("HEAD~1"))
        with self.assertRaisesRegex(UsageError, "knows no commit 'side'.*, which is on there; .*: main$"):
            resolve("side~1")
        with self.assertRaises(NotInLedgerError):
            resolve("abcdef0")
        push(self.database, there, commit(0xABCDE3), ref="refs/heads/topic")
        with self.assertRaisesRegex(UsageError, "give a commit id, a tag or a branch: main, topic$"):
            resolve("HEAD")
        logged = commit_log(self.database, there, "main", "here", 5)
        self.assertEqual([0xABCDE2, 0xABCDE1], [int(one.commit, 16) for one in logged])

    def test_simple_steps_lead_on_from_a_revision_elsewhere(self):
        there = self.register("there", "/srv/far.git", "far")
        root, left, right = commit(1), commit(2, parents=(commit(1).id,)), commit(3, parents=(commit(1).id,))
        merge, tip = commit(4, parents=(left.id, right.id)), commit(5, parents=(commit(4).id,))
        push(self.database, there, root, left, right, merge, tip)
        for steps, expected in (
            ("~0", tip),
            ("^0", tip),
            ("^{commit}", tip),
            ("^{}~", merge),
            ("^", merge),
            ("~1^2", right),
            ("^^", left),
            ("~3", root),
            ("^^2^1", root),
        ):
            for name in ("main", "HEAD", "@", "refs/heads/main", tip.id):
                with self.subTest(name + steps):
                    self.assertEqual(
                        expected.id, resolve_revision(self.database, there, name + steps, "here")
                    )
        for revision in ("main~4", "main^2", "main~99999"):
            with (
                self.subTest(revision),
                self.assertRaisesRegex(UsageError, "no parent .*; ask for it on there"),
            ):
                resolve_revision(self.database, there, revision, "here")
        for revision in ("main^{tree}", "main@{0}", "~1", "^", "main~x"):
            with self.subTest(revision), self.assertRaisesRegex(UsageError, "knows no commit"):
                resolve_revision(self.database, there, revision, "here")

    def test_the_log_has_every_commit_tested_or_not_newest_first(self):
        commits = [self.tree.commit(f"Commit {n}") for n in range(3)]
        self.tree.commit("odd \u2028 \x1b[31m")
        self.tree.push("HEAD:main")
        logged = commit_log(self.database, self.repository, "main~1", "here", 2)
        self.assertEqual([commits[2], commits[1]], [one.commit for one in logged])
        self.assertEqual(((), ()), (logged[0].runs, logged[1].runs))
        [odd] = commit_log(self.database, self.repository, "main", "here", 1)
        self.assertEqual(git(self.bare, "log", "-1", "--format=%s", "main"), odd.subject)

    def test_a_commit_without_a_run_is_said_with_the_next_step(self):
        made = self.tree.commit()
        with self.assertRaisesRegex(NoSuchRunError, "queue one with `ciapp rerun team"):
            runs_of(self.database, self.repository, made)


if __name__ == "__main__":
    unittest.main()
