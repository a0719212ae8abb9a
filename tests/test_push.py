"""ciapp/intake/push.py on real repositories and real pushes."""

from __future__ import annotations

import unittest
from datetime import UTC, datetime
from pathlib import Path

from ciapp.git import Commit, Repository
from ciapp.intake.push import SUBJECT_LIMIT, RefUpdate, changed_refs, new_commits, tips, untestable
from tests.support.git_repositories import WorkTree, git, new_bare_repository

NULL = "0" * 40


class PushTest(unittest.TestCase):
    """A bare repository, a work tree that pushes to it, and a ledger that remembers values."""

    init_options: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.bare = new_bare_repository(self, "team.git", *self.init_options)
        self.repository = Repository(self.bare)
        self.tree = WorkTree(self, self.bare, *self.init_options)
        self.seen: dict[str, str] = {}

    def push(self, *words: str) -> list[RefUpdate]:
        """Push, and tell what changed as post-receive would."""
        before = self.repository.refs()
        self.tree.push("--quiet", *words)
        return changed_refs(self.repository.refs(), before)

    def new(self, updates: list[RefUpdate]) -> list[str]:
        """Ids of the new commits; the ledger has seen them from now on."""
        found = [commit.id for commit in new_commits(self.repository, updates, self.seen.values())]
        self.seen = self.repository.refs()
        return found

    def make_chain(self, count: int) -> list[str]:
        """Commits without files on main of the bare repository, quickly."""
        lines = []
        for number in range(count):
            text = f"Number {number}"
            lines.append(f"commit refs/heads/main\ncommitter Ann <ann@example.org> {1000 + number} +0000")
            lines.append(f"data {len(text)}\n{text}")
        git(self.bare, "fast-import", "--quiet", stdin="\n".join([*lines, ""]))
        return git(self.bare, "rev-list", "--reverse", "main").split("\n")


class TestNewCommits(PushTest):
    def test_first_push_into_an_empty_repository_brings_its_whole_history(self) -> None:
        pushed = [self.tree.commit(f"Change {number}") for number in range(3)]

        self.assertEqual(pushed, self.new(self.push("main")))

    def test_second_push_brings_what_was_added(self) -> None:
        self.tree.commit()
        self.new(self.push("main"))
        added = [self.tree.commit(), self.tree.commit()]

        self.assertEqual(added, self.new(self.push("main")))

    def test_new_branch_brings_only_its_own_commits(self) -> None:
        self.tree.commit()
        self.new(self.push("main"))
        self.tree.git("switch", "--quiet", "-c", "topic")
        added = self.tree.commit()

        self.assertEqual([added], self.new(self.push("topic")))

    def test_new_branch_at_a_known_commit_brings_nothing(self) -> None:
        self.tree.commit()
        self.new(self.push("main"))

        self.assertEqual([], self.new(self.push("main:refs/heads/copy")))

    def test_branches_that_share_commits_bring_each_once(self) -> None:
        shared = self.tree.commit("Shared")
        self.tree.git("switch", "--quiet", "-c", "left")
        left = self.tree.commit("Left")
        self.tree.git("switch", "--quiet", "-c", "right", "main")
        right = self.tree.commit("Right")

        found = self.new(self.push("main", "left", "right", "left:refs/heads/again"))

        self.assertEqual(shared, found[0])
        self.assertCountEqual([shared, left, right], found)

    def test_merge_brings_the_other_side_and_itself_parents_first(self) -> None:
        self.tree.commit("Base")
        self.new(self.push("main"))
        self.tree.git("switch", "--quiet", "-c", "topic")
        side = [self.tree.commit("Side 1", {"side": "1"}), self.tree.commit("Side 2", {"side": "2"})]
        self.tree.git("switch", "--quiet", "main")
        mainline = self.tree.commit("Main", {"main": "1"})
        self.tree.git("merge", "--quiet", "--no-ff", "--no-edit", "topic")
        merge = self.tree.git("rev-parse", "HEAD")

        found = list(new_commits(self.repository, self.push("main"), self.seen.values()))

        ids = [commit.id for commit in found]
        self.assertCountEqual([*side, mainline, merge], ids)
        self.assertEqual(merge, ids[-1])
        self.assertLess(ids.index(side[0]), ids.index(side[1]))
        self.assertEqual((mainline, side[1]), found[-1].parents)

    def test_force_push_brings_the_commits_that_replace(self) -> None:
        self.tree.commit("Base")
        self.tree.commit("Old")
        self.new(self.push("main"))
        self.tree.git("reset", "--quiet", "--hard", "HEAD~1")
        added = self.tree.commit("New")

        self.assertEqual([added], self.new(self.push("--force", "main")))

    def test_force_push_back_to_an_ancestor_brings_nothing(self) -> None:
        self.tree.commit("Base")
        self.tree.commit("Old")
        self.new(self.push("main"))
        self.tree.git("reset", "--quiet", "--hard", "HEAD~1")

        self.assertEqual([], self.new(self.push("--force", "main")))

    def test_annotated_tag_brings_the_commit_it_names(self) -> None:
        tagged = self.tree.commit()
        self.tree.git("tag", "-a", "-m", "Release", "v1")
        self.tree.git("tag", "-a", "-m", "A tag of a tag", "v1-again", "v1")

        updates = self.push("v1", "v1-again")

        self.assertEqual([tagged], self.new(updates))
        self.assertEqual({tagged: ("refs/tags/v1", "refs/tags/v1-again")}, tips(self.repository, updates))

    def test_a_seen_annotated_tag_hides_what_it_reaches(self) -> None:
        self.tree.commit()
        self.tree.git("tag", "-a", "-m", "Release", "v1")
        self.new(self.push("v1"))
        added = self.tree.commit()

        self.assertEqual([added], self.new(self.push("main")))

    def test_deleted_branch_brings_nothing(self) -> None:
        self.tree.commit()
        self.new(self.push("main:refs/heads/gone"))

        updates = self.push("--delete", "gone")

        self.assertEqual(NULL, updates[0].new)
        self.assertEqual([], self.new(updates))
        self.assertEqual({}, tips(self.repository, updates))

    def test_tag_of_a_tree_or_a_blob_brings_nothing_and_says_so(self) -> None:
        self.tree.commit(files={"file": "content"})
        self.tree.git("tag", "tree", "HEAD^{tree}")
        self.tree.git("tag", "-a", "-m", "A blob", "blob", "HEAD:file")

        updates = self.push("tree", "blob")

        self.assertEqual([], self.new(updates))
        self.assertEqual({}, tips(self.repository, updates))
        said = untestable(self.repository, updates)
        self.assertIn("names a tree", said["refs/tags/tree"])
        self.assertIn("names a blob", said["refs/tags/blob"])

    def test_commits_of_a_lost_hook_come_with_the_next_push(self) -> None:
        self.tree.commit()
        self.new(self.push("main"))
        lost = self.tree.commit("Pushed, never recorded")
        self.push("main")
        added = self.tree.commit()

        self.assertEqual([lost, added], self.new(self.push("main")))

    def test_seen_values_whose_objects_are_gone_do_not_matter(self) -> None:
        kept = self.tree.commit()
        self.new(self.push("main"))
        self.tree.git("switch", "--quiet", "-c", "topic")
        self.tree.commit("Pruned")
        self.new(self.push("topic"))
        self.push("--delete", "topic")
        git(self.bare, "-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now")
        self.assertFalse(self.repository.has_commit(self.seen["refs/heads/topic"]))
        self.tree.git("switch", "--quiet", "main")
        added = self.tree.commit()

        self.assertEqual([added], self.new(self.push("main")))
        self.assertNotEqual(kept, added)

    def test_a_pushed_value_whose_object_is_gone_is_said_and_hurts_no_other(self) -> None:
        kept = self.tree.commit()
        updates = [*self.push("main"), RefUpdate(NULL, "12" * 20, "refs/heads/gone")]

        self.assertEqual([kept], self.new(updates))
        self.assertIn("no longer there", untestable(self.repository, updates)["refs/heads/gone"])

    def test_a_seen_commit_without_its_parents_still_hides_itself(self) -> None:
        first, second = self.make_chain(2)
        (self.bare / "objects" / first[:2] / first[2:]).unlink()
        added = git(self.bare, "commit-tree", "-m", "Third", "-p", second, f"{second}^{{tree}}")
        self.seen = {"refs/heads/main": second}

        self.assertEqual([added], self.new([RefUpdate(second, added, "refs/heads/main")]))

    def test_our_own_refs_bring_nothing(self) -> None:
        pushed = self.tree.commit()

        updates = [RefUpdate(NULL, pushed, "refs/ciapp/push/1/0"), *self.push("main:refs/heads/main")]

        self.assertEqual({pushed: ("refs/heads/main",)}, tips(self.repository, updates))

    def test_same_commit_under_two_refs_names_both(self) -> None:
        pushed = self.tree.commit()

        updates = self.push("main", "main:refs/heads/copy")

        self.assertEqual([pushed], self.new(updates))
        self.assertEqual({pushed: ("refs/heads/copy", "refs/heads/main")}, tips(self.repository, updates))

    def test_ten_thousand_commits_come_one_by_one(self) -> None:
        chain = self.make_chain(10_000)

        commits = new_commits(self.repository, [RefUpdate(NULL, chain[-1], "refs/heads/main")], ())

        self.assertEqual(chain[0], next(commits).id)
        self.assertEqual(chain[1:], [commit.id for commit in commits])


class TestNewCommitsOfSha256(TestNewCommits):
    """The same facts in a repository whose ids have 64 digits."""

    init_options = ("--object-format=sha256",)

    def test_deleted_branch_brings_nothing(self) -> None:
        self.tree.commit()
        self.new(self.push("main:refs/heads/gone"))

        updates = self.push("--delete", "gone")

        self.assertEqual("0" * 64, updates[0].new)
        self.assertEqual([], self.new(updates))

    def test_a_pushed_value_whose_object_is_gone_is_said_and_hurts_no_other(self) -> None:
        kept = self.tree.commit()
        updates = [*self.push("main"), RefUpdate("0" * 64, "12" * 32, "refs/heads/gone")]

        self.assertEqual([kept], self.new(updates))


class TestFacts(PushTest):
    """What is told of one commit."""

    def commit_raw(self, header: bytes, message: bytes) -> str:
        """A commit object of any bytes, on main of the bare repository."""
        tree = git(self.bare, "mktree")
        content = b"tree " + tree.encode() + b"\n" + header + b"\n" + message
        commit = git(self.bare, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=content)
        git(self.bare, "update-ref", "refs/heads/main", commit)
        return commit

    def only(self, commit: str) -> Commit:
        [found] = new_commits(self.repository, [RefUpdate(NULL, commit, "refs/heads/main")], ())
        return found

    def test_a_commit_is_told_whole(self) -> None:
        self.tree.commit("First", {"file": "1"})
        self.tree.git(
            "commit",
            "--quiet",
            "--allow-empty",
            "--author=Bo Ek <bo@example.org>",
            "--date=2001-01-01T00:00:00Z",
            "--message=Subject in\ntwo lines\n\nBody",
            environ={"GIT_COMMITTER_DATE": "2026-02-03T04:05:06+02:00"},
        )
        [first, second] = new_commits(self.repository, self.push("main"), ())

        self.assertEqual(self.tree.git("rev-parse", "HEAD"), second.id)
        self.assertEqual(self.tree.git("rev-parse", "HEAD^{tree}"), second.tree)
        self.assertEqual((first.id,), second.parents)
        self.assertEqual((), first.parents)
        self.assertEqual("Bo Ek <bo@example.org>", second.author)
        self.assertEqual("Subject in two lines", second.subject)
        self.assertEqual(datetime(2026, 2, 3, 2, 5, 6, tzinfo=UTC), second.committed_at)

    def test_a_declared_encoding_is_read(self) -> None:
        people = "author Ångström <a@example.org> 1 +0000\ncommitter A <a@example.org> 1 +0000\n"
        commit = self.commit_raw(
            people.encode("latin-1") + b"encoding ISO-8859-1\n", "Größe\n".encode("latin-1")
        )

        self.assertEqual("Größe", self.only(commit).subject)
        self.assertEqual("Ångström <a@example.org>", self.only(commit).author)

    def test_bytes_of_no_encoding_survive(self) -> None:
        people = b"author \xff\xfe <a@example.org> 1 +0000\ncommitter A <a@example.org> 1 +0000\n"
        commit = self.commit_raw(people, b"Broken \xc3\x28 \x1b[31m \x85 \r subject\n")

        found = self.only(commit)

        self.assertEqual(
            b"Broken \xc3\x28 \x1b[31m \x85 \r subject", found.subject.encode("utf-8", "surrogateescape")
        )
        self.assertEqual(b"\xff\xfe <a@example.org>", found.author.encode("utf-8", "surrogateescape"))

    def test_a_nul_in_the_message_does_not_split_the_answer(self) -> None:
        people = b"author A <a@example.org> 1 +0000\ncommitter A <a@example.org> 1 +0000\n"
        commit = self.commit_raw(people, b"Before\0after\n")

        self.assertEqual("Before", self.only(commit).subject)

    def test_an_empty_message_and_an_impossible_date_are_told(self) -> None:
        people = b"author A <a@example.org> 1 +0000\ncommitter A <a@example.org> 99999999999999999 +0000\n"
        found = self.only(self.commit_raw(people, b""))

        self.assertEqual("", found.subject)
        self.assertEqual(UTC, found.committed_at.tzinfo)

    def test_a_subject_of_megabytes_is_cut(self) -> None:
        people = b"author A <a@example.org> 1 +0000\ncommitter A <a@example.org> 1 +0000\n"
        found = self.only(self.commit_raw(people, b"x" * 3_000_000))

        self.assertEqual("x" * SUBJECT_LIMIT, found.subject)


class TestShallow(PushTest):
    def test_push_into_a_shallow_repository_brings_its_commits_alone(self) -> None:
        for number in range(5):
            self.tree.commit(f"Change {number}")
        self.push("main")
        shallow = self.bare.parent / "shallow.git"
        git(self.bare.parent, "clone", "--quiet", "--bare", "--depth=2", f"file://{self.bare}", str(shallow))
        before = Repository(shallow).refs()
        added = self.tree.commit("Added")
        self.tree.git("push", "--quiet", str(shallow), "main")
        updates = changed_refs(Repository(shallow).refs(), before)

        self.assertEqual(
            [added], [one.id for one in new_commits(Repository(shallow), updates, before.values())]
        )
        found = [one.id for one in new_commits(Repository(shallow), updates, ())]
        self.assertEqual(3, len(found))

    def test_push_out_of_a_shallow_repository_brings_its_commits_alone(self) -> None:
        for number in range(5):
            self.tree.commit(f"Change {number}")
        self.new(self.push("main"))
        clone = self.bare.parent / "clone"
        git(self.bare.parent, "clone", "--quiet", "--depth=1", f"file://{self.bare}", str(clone))
        git(clone, "commit", "--quiet", "--allow-empty", "--message=Added")
        before = self.repository.refs()
        git(clone, "push", "--quiet", "origin", "main")

        updates = changed_refs(self.repository.refs(), before)
        self.assertEqual([git(clone, "rev-parse", "HEAD")], self.new(updates))


class TestChangedRefs(unittest.TestCase):
    A, B = "a" * 40, "b" * 40

    def test_nothing_changed(self) -> None:
        self.assertEqual([], changed_refs({"refs/heads/main": self.A}, {"refs/heads/main": self.A}))

    def test_new_changed_and_deleted_refs_are_found_in_order(self) -> None:
        current = {"refs/heads/new": self.A, "refs/heads/changed": self.B, "refs/heads/same": self.A}
        seen = {"refs/heads/gone": self.A, "refs/heads/changed": self.A, "refs/heads/same": self.A}

        self.assertEqual(
            [
                RefUpdate(self.A, self.B, "refs/heads/changed"),
                RefUpdate(self.A, NULL, "refs/heads/gone"),
                RefUpdate(NULL, self.A, "refs/heads/new"),
            ],
            changed_refs(current, seen),
        )

    def test_null_ids_are_as_long_as_the_others(self) -> None:
        long = "c" * 64

        self.assertEqual(
            [RefUpdate("0" * 64, long, "refs/heads/x")], changed_refs({"refs/heads/x": long}, {})
        )

    def test_our_own_refs_are_left_out(self) -> None:
        self.assertEqual([], changed_refs({"refs/ciapp/push/1/0": self.A}, {"refs/ciapp/push/0/0": self.B}))

    def test_a_ref_name_of_any_bytes_is_kept(self) -> None:
        ref = Path("refs/heads/\udcff").as_posix()

        self.assertEqual(ref, changed_refs({ref: self.A}, {})[0].ref)
