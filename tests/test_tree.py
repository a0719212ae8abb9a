"""Which files belong to a working tree, and what git says of it."""

from __future__ import annotations

import os
import unittest
from pathlib import Path

from ciapp.errors import GitError, UsageError
from ciapp.testing.tree import find_tree
from tests.support.git_repositories import WorkTree, git, new_bare_repository, new_folder


class TestFiles(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)

    def write(self, *names: str) -> None:
        for name in names:
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)

    def files(self, folder: Path | None = None) -> set[str]:
        return {name for name, _ in find_tree(folder or self.folder).files()}

    def test_git_says_tracked_files_and_new_ones_but_none_that_it_ignores(self) -> None:
        git(self.folder, "init", "--quiet")
        self.write("kept.py", "deleted.py", "a/b.py", "ä ü.txt", ".gitignore")
        (self.folder / ".gitignore").write_text("*.pyc\nbuild/\n")
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--message", "First")
        (self.folder / "deleted.py").unlink()
        self.write("new.py", "build/out", "a/b.pyc")
        (self.folder / "link").symlink_to("/etc/passwd")
        (self.folder / "folder_link").symlink_to("a")
        os.mkfifo(self.folder / "pipe")

        self.assertEqual(
            {"kept.py", "a/b.py", "ä ü.txt", ".gitignore", "new.py", "link", "folder_link"}, self.files()
        )

    def test_what_a_user_has_git_ignore_everywhere_is_ignored(self) -> None:
        git(self.folder, "init", "--quiet")
        self.write("a.py", "b.swp", "ignored")
        (self.folder / "ignored").write_text("*.swp\nignored\n")
        git(self.folder, "config", "core.excludesFile", str(self.folder / "ignored"))

        self.assertEqual({"a.py"}, self.files())

    def test_submodules_and_repositories_inside_are_part_of_it(self) -> None:
        library = WorkTree(self, self.folder)
        library.commit("Library", {"lib.py": ""})
        git(self.folder, "init", "--quiet")
        allowed = ("-c", "protocol.file.allow=always")
        git(self.folder, *allowed, "submodule", "add", "--quiet", str(library.path), "lib")
        (self.folder / "other").mkdir()
        git(self.folder / "other", "init", "--quiet")
        self.write("lib/new.py", "other/own.py")

        self.assertEqual({".gitmodules", "lib/lib.py", "lib/new.py", "other/own.py"}, self.files())

    def test_without_git_everything_is_but_caches_and_environments(self) -> None:
        self.write("a.py", ".hidden", "tests/test_a.py", "tests/__pycache__/test_a.pyc", "node_modules/x.js")
        self.write("env/pyvenv.cfg", "env/lib/x.py", ".mypy_cache/CACHEDIR.TAG", ".mypy_cache/x")

        self.assertEqual({"a.py", ".hidden", "tests/test_a.py"}, self.files())


class TestFindTree(unittest.TestCase):
    def test_a_folder_in_a_work_tree_stands_for_the_whole_tree(self) -> None:
        tree = WorkTree(self, new_folder(self))
        commit = tree.commit("Subject", {"deep/er/a.py": ""})

        found = find_tree(tree.path / "deep" / "er")

        self.assertEqual((tree.path, True), (found.path, found.is_clean))
        assert found.head is not None
        self.assertEqual(
            (commit, tree.git("rev-parse", "HEAD^{tree}"), "Subject", ("refs/heads/main",)),
            (found.head.commit, found.head.tree, found.head.subject, found.head.refs),
        )

    def test_any_change_or_new_file_makes_it_unclean_and_an_ignored_one_does_not(self) -> None:
        tree = WorkTree(self, new_folder(self))
        tree.commit("First", {"a.py": "", ".gitignore": "*.pyc"})
        (tree.path / "a.pyc").touch()
        self.assertTrue(find_tree(tree.path).is_clean)
        (tree.path / "new.py").touch()
        self.assertFalse(find_tree(tree.path).is_clean)
        (tree.path / "new.py").unlink()
        (tree.path / "a.py").chmod(0o755)
        self.assertFalse(find_tree(tree.path).is_clean)

    def test_a_folder_that_the_tree_around_it_ignores_is_a_tree_of_its_own(self) -> None:
        home = WorkTree(self, new_folder(self))
        home.commit("Dot files", {".gitignore": "projects/"})
        (home.path / "projects" / "mine").mkdir(parents=True)

        found = find_tree(home.path / "projects" / "mine")

        self.assertEqual((home.path / "projects" / "mine", None), (found.path, found.git))

    def test_a_repository_without_a_commit_has_no_head(self) -> None:
        folder = new_folder(self)
        git(folder, "init", "--quiet")

        self.assertEqual((None, False), (find_tree(folder).head, find_tree(folder).is_clean))

    def test_the_index_is_not_written_to(self) -> None:
        tree = WorkTree(self, new_folder(self))
        tree.commit("First", {"a.py": "a"})
        os.utime(tree.path / "a.py", (1e9, 1e9))  # a plain `git status` would note the new time
        before = (tree.path / ".git" / "index").read_bytes()

        self.assertTrue(find_tree(tree.path).is_clean)

        self.assertEqual(before, (tree.path / ".git" / "index").read_bytes())

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to give a folder away")
    def test_a_tree_of_another_users_is_refused_with_gits_way_out(self) -> None:
        tree = WorkTree(self, new_folder(self))
        tree.commit("First", {"deep/a.py": ""})
        for path in (tree.path, tree.path / ".git"):
            os.chown(path, 65534, 65534)
        with self.assertRaisesRegex(UsageError, f"--add safe.directory {tree.path}`"):
            find_tree(tree.path / "deep")

    def test_a_bare_repository_is_no_working_tree(self) -> None:
        with self.assertRaisesRegex(UsageError, "is a bare repository; name a work tree"):
            find_tree(new_bare_repository(self))

    def test_what_is_no_folder_is_refused_and_a_broken_repository_is_no_plain_folder(self) -> None:
        folder = new_folder(self)
        (folder / "file").touch()
        with self.assertRaisesRegex(UsageError, "is no folder; name one that holds a project"):
            find_tree(folder / "file")
        (folder / ".git").mkdir()
        with self.assertRaisesRegex(GitError, "not a git repository"):
            find_tree(folder)


if __name__ == "__main__":
    unittest.main()
