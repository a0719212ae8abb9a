"""A copy of a working tree: exactly its files, whatever was done to the copy; and the tree as it was."""

from __future__ import annotations

import os
import time
import unittest
from pathlib import Path
from unittest import mock

from ciapp.errors import UsageError
from ciapp.settings import Limits
from ciapp.testing.replica import KEPT, Replica, copy_tree
from ciapp.testing.sandbox import SandboxSetting, open_sandbox
from ciapp.testing.slot import take_slot
from ciapp.testing.tree import find_tree
from tests.support.git_repositories import WorkTree, git, new_folder
from tests.support.sandboxes import WEAK, needs_bubblewrap, run_command, tree_of


class Copying:
    """Mixed into a test case: a work tree and a slot, at one of the sandbox's levels."""

    setting: SandboxSetting = "auto"

    def setUp(self) -> None:
        assert isinstance(self, unittest.TestCase)
        state = new_folder(self)
        state.chmod(0o711)
        self.slot = take_slot(state / "state")
        self.addCleanup(self.slot.release)
        self.tree = WorkTree(self, new_folder(self))

    def copy(self) -> Replica:
        return copy_tree(find_tree(self.tree.path), self.slot, setting=self.setting)

    def write(self, name: str, text: str) -> Path:
        file = self.tree.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def do(self, replica: Replica, *command: str) -> str:
        """What a program prints that runs in the copy as tests do."""
        sandbox = open_sandbox(self.slot, replica.checkout, Limits(), setting=self.setting)
        return run_command(sandbox, command).output


class Facts(Copying):
    def files(self, replica: Replica) -> dict[str, str]:
        found = {}
        for folder, folders, files in os.walk(replica.checkout.path):
            folders[:] = [name for name in folders if name != ".git"]
            for name in files:
                file = Path(folder, name)
                found[str(file.relative_to(replica.checkout.path))] = (
                    f"-> {file.readlink()}" if file.is_symlink() else file.read_text()
                )
        return found

    def test_the_copy_has_the_trees_files_as_they_are_now(self) -> None:
        self.tree.commit("First", {"a.py": "one", "gone.py": "", "deep/b.py": "b"})
        self.write("a.py", "two")
        (self.tree.path / "gone.py").unlink()
        (self.tree.path / "link").symlink_to("a.py")
        self.assertEqual({"a.py": "two", "deep/b.py": "b", "link": "-> a.py"}, self.files(self.copy()))

        self.write("a.py", "thr")  # as long as before
        self.write("new/c.py", "c")
        (self.tree.path / "deep" / "b.py").unlink()
        (self.tree.path / "link").unlink()
        self.assertEqual({"a.py": "thr", "new/c.py": "c"}, self.files(self.copy()))

    def test_whatever_tests_do_to_the_copy_is_undone_and_the_tree_is_unharmed(self) -> None:
        self.tree.commit(
            "First", {"a.py": "a", "b.py": "b", "folder/c.py": "c", "folder/deep/d.py": "d", "e.py": "e"}
        )
        before, fresh = tree_of(self.tree.path), tree_of(self.copy().checkout.path)

        self.do(
            self.copy(),
            "sh",
            "-c",
            "printf A > new; mv new a.py; rm -rf .git b.py folder/deep; mkdir b.py litter folder/__pycache__;"
            "touch litter/x folder/__pycache__/c.pyc; ln -s /etc folder/deep; mkfifo pipe; ln a.py harder;"
            "touch -r e.py stamp; printf x > e.py; touch -r stamp e.py;"  # of the same size and time
            "chmod 777 folder/c.py; chmod 000 folder litter; chmod 555 .",
        )

        self.assertEqual(fresh, tree_of(self.copy().checkout.path))
        self.assertEqual(before, tree_of(self.tree.path))

    def test_a_link_in_place_of_a_folder_is_not_written_through(self) -> None:
        self.write("folder/a.py", "mine")
        outside = new_folder(self)
        (outside / "a.py").write_text("theirs")
        replica = self.copy()
        self.do(replica, "sh", "-c", f"rm -r folder; ln -s {outside} folder")
        self.write("folder/a.py", "changed")

        self.assertEqual({"folder/a.py": "changed"}, self.files(self.copy()))
        self.assertEqual("theirs", (outside / "a.py").read_text())

    def made_at(self, replica: Replica) -> dict[str, int]:
        """When each file of the copy was last changed; an inode's number may be used again at once."""
        return {file.name: file.stat().st_ctime_ns for file in replica.checkout.path.glob("a*.py")}

    def test_only_what_differs_is_copied(self) -> None:
        for number in range(20):
            self.write(f"a{number}.py", "same")
        first = self.made_at(self.copy())
        self.write("a7.py", "other")

        second = self.made_at(self.copy())

        self.assertEqual({"a7.py"}, {name for name in first if first[name] != second[name]})

    def test_times_and_whether_a_file_may_be_run_are_kept_as_git_keeps_them(self) -> None:
        script = self.write("run.sh", "#!/bin/sh\n")
        script.chmod(0o700)
        os.utime(script, (1_000_000_000, 1_000_000_000))
        self.write("secret.py", "").chmod(0o600)

        path = self.copy().checkout.path

        self.assertEqual(0o755, (path / "run.sh").stat().st_mode & 0o777)
        self.assertEqual(0o644, (path / "secret.py").stat().st_mode & 0o777)
        self.assertEqual(1_000_000_000, (path / "run.sh").stat().st_mtime)

    def test_the_content_is_named_anew_with_each_change_and_stays_without_one(self) -> None:
        file = self.write("a.py", "one")
        first, again = self.copy().content, self.copy().content
        time.sleep(0.01)  # a change within one tick of the file system's clock has the same times
        file.write_text("two")

        self.assertEqual(first, again)
        self.assertNotEqual(first, self.copy().content)

    def test_tests_may_ask_git(self) -> None:
        commit = self.tree.commit("First", {"a.py": ""})
        self.tree.git("tag", "--annotate", "--message", "Version", "v1.2")
        self.write("new.py", "")
        # At the weak level, tests are another user than root where root's Python is open to others.
        self.tree.path.chmod(0o711)

        replica = self.copy()

        self.assertEqual(f"{commit}\n", self.do(replica, "git", "rev-parse", "HEAD"))
        self.assertEqual("v1.2\n", self.do(replica, "git", "describe"))
        self.assertEqual("?? new.py\n", self.do(replica, "git", "status", "--porcelain"))
        self.assertEqual("", self.do(replica, "git", "fsck", "--connectivity-only"))

    def test_tests_may_ask_git_in_a_clone_that_borrows_its_objects(self) -> None:
        commit = self.tree.commit("First", {"a.py": ""})
        clone = new_folder(self)
        git(clone, "clone", "--quiet", "--shared", str(self.tree.path), "clone")
        for folder in (self.tree.path, clone):
            folder.chmod(0o711)

        replica = copy_tree(find_tree(clone / "clone"), self.slot, setting=self.setting)

        self.assertEqual(f"{commit} First\n", self.do(replica, "git", "log", "--format=%H %s"))

    def test_a_worktree_of_gits_own_and_a_tree_without_commits_can_be_copied(self) -> None:
        self.write("a.py", "")
        self.assertEqual("?? a.py\n", self.do(self.copy(), "git", "status", "--porcelain"))
        commit = self.tree.commit("First", {"a.py": ""})
        beside = new_folder(self) / "beside"
        self.tree.git("worktree", "add", "--quiet", "--detach", str(beside))

        replica = copy_tree(find_tree(beside), self.slot, setting=self.setting)

        self.assertEqual(f"{commit}\n", self.do(replica, "git", "rev-parse", "HEAD"))

    def test_copies_of_trees_not_used_for_long_go(self) -> None:
        keys = []
        for _ in range(KEPT + 2):
            folder = new_folder(self)
            (folder / "a.py").touch()
            keys.append(copy_tree(find_tree(folder), self.slot, setting=self.setting).checkout.path.name)
            time.sleep(0.01)

        left = {path.name for path in (self.slot.path / "checkouts").iterdir()}

        self.assertEqual(set(keys[-KEPT:]), left)


@needs_bubblewrap
class TestInBubblewrap(Facts, unittest.TestCase):
    setting = "auto"


class TestUnderLimits(Facts, unittest.TestCase):
    setting = WEAK


class TestTrouble(Copying, unittest.TestCase):
    def test_a_state_folder_in_the_tree_is_no_part_of_it(self) -> None:
        for has_git in (True, False):
            with self.subTest(git=has_git):
                tree = new_folder(self)
                if has_git:
                    git(tree, "init", "--quiet")
                (tree / "a.py").touch()
                slot = take_slot(tree / "deep" / "state")
                self.addCleanup(slot.release)
                for _ in range(2):
                    path = copy_tree(find_tree(tree), slot, setting=WEAK).checkout.path
                    self.assertEqual({"a.py"}, {file.name for file in path.iterdir()} - {".git"})

    def test_a_folder_that_is_too_large_to_be_a_project_is_refused_unless_git_keeps_it(self) -> None:
        tree = new_folder(self)
        for number in range(4):
            (tree / f"{number}.py").write_text("x")
        for limit in ({"MOST_FILES": 3}, {"MOST_BYTES": 3}):
            with (
                mock.patch.multiple("ciapp.testing.replica", **limit),
                self.assertRaisesRegex(UsageError, "name a project's own folder, or keep it in git"),
            ):
                copy_tree(find_tree(tree), self.slot)
        git(tree, "init", "--quiet")
        with mock.patch("ciapp.testing.replica.MOST_FILES", 3):
            copy_tree(find_tree(tree), self.slot)

    def test_a_record_that_is_damaged_means_a_whole_copy(self) -> None:
        self.write("a.py", "a")
        replica = self.copy()
        [record] = (self.slot.path / "records").iterdir()
        record.write_bytes(b"\xc1 no such thing")

        self.assertEqual("a", (self.copy().checkout.path / "a.py").read_text())
        self.assertEqual(replica.content, self.copy().content)


if __name__ == "__main__":
    unittest.main()
