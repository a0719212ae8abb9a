from __future__ import annotations

import contextlib
import os
import stat
import textwrap
import unittest
from pathlib import Path

from ciapp.errors import CheckoutError, ProjectError
from ciapp.settings import Limits
from ciapp.testing.checkout import check_out
from ciapp.testing.sandbox import SandboxSetting
from tests.support.git_repositories import WorkTree, new_folder
from tests.support.sandboxes import HAS_BUBBLEWRAP, WEAK, Place, run_python, tree_of

ROOT = os.geteuid() == 0


class TestCheckout(unittest.TestCase):
    setting: SandboxSetting = "auto"

    def setUp(self) -> None:
        self.place = Place(self, self.setting)
        self.path = self.place.path

    def run_inside(self, script: str, *arguments: str) -> str:
        """Run a script on the checkout as it stands."""
        checkout = self.place.check_out(self.commit)
        ended = run_python(self.place.open(checkout), textwrap.dedent(script), *arguments)
        self.assertEqual(0, ended.status, ended.output)
        return ended.output.rstrip("\n")

    @property
    def commit(self) -> str:
        return self.place.origin.git("rev-parse", "HEAD")

    def assert_undone(self, script: str) -> None:
        """What a script does to the checkout is gone with the next one, to the last byte."""
        self.place.check_out(self.commit)
        before = tree_of(self.path)
        self.run_inside(script)
        self.assertNotEqual(before, tree_of(self.path), "the script has changed nothing")
        self.place.check_out(self.commit)
        self.assertEqual(before, tree_of(self.path))


class TestLayingOut(TestCheckout):
    def test_the_files_are_those_of_the_commit(self) -> None:
        first = self.place.origin.commit("One", {"a.py": "a\n", "b/c.py": "c\n", "b/d/e.py": "e\n"})
        (self.place.origin.path / "b" / "c.py").unlink()
        second = self.place.origin.commit("Two", {"a.py": "A\n", "b/d/f.py": "f\n"})
        for commit, files in (
            (first, {"a.py": b"a\n", "b/c.py": b"c\n", "b/d/e.py": b"e\n"}),
            (second, {"a.py": b"A\n", "b/d/e.py": b"e\n", "b/d/f.py": b"f\n"}),
            (first, {"a.py": b"a\n", "b/c.py": b"c\n", "b/d/e.py": b"e\n"}),
        ):
            self.assertEqual(self.path, self.place.check_out(commit).path)
            found = {
                str(file.relative_to(self.path)): file.read_bytes()
                for file in self.path.rglob("*")
                if file.is_file() and ".git" not in file.relative_to(self.path).parts
            }
            self.assertEqual(files, found)

    def test_files_that_do_not_differ_are_not_touched(self) -> None:
        first = self.place.origin.commit("One", {"same.py": "x", "other.py": "1"})
        second = self.place.origin.commit("Two", {"other.py": "2"})
        self.place.check_out(first)
        before = (self.path / "same.py").stat()
        self.place.check_out(second)
        self.place.check_out(first)
        after = (self.path / "same.py").stat()
        # Not st_atime: git may read it.
        self.assertEqual(
            (before.st_ino, before.st_mtime_ns, before.st_ctime_ns),
            (after.st_ino, after.st_mtime_ns, after.st_ctime_ns),
        )

    def test_modes_and_links_are_those_of_the_commit(self) -> None:
        origin = self.place.origin.path
        (origin / "run.sh").write_text("")
        (origin / "run.sh").chmod(0o755)
        (origin / "data").write_text("")
        (origin / "link").symlink_to("data")
        (origin / "away").symlink_to("/etc/passwd")
        self.place.check_out(self.place.origin.commit())
        self.assertEqual(0o755, stat.S_IMODE((self.path / "run.sh").stat().st_mode))
        self.assertEqual(0o644, stat.S_IMODE((self.path / "data").stat().st_mode))
        self.assertEqual(Path("data"), (self.path / "link").readlink())
        self.assertEqual(Path("/etc/passwd"), (self.path / "away").readlink())

    def test_modes_do_not_depend_on_the_workers_umask(self) -> None:
        previous = os.umask(0o077)
        self.addCleanup(os.umask, previous)
        self.place.commit({"a/b.py": ""})
        self.assertEqual(0o755, stat.S_IMODE((self.path / "a").stat().st_mode))
        self.assertEqual(0o644, stat.S_IMODE((self.path / "a" / "b.py").stat().st_mode))

    def test_names_may_hold_anything(self) -> None:
        names = [
            b"new\nline",
            b"\"quotes'",
            b"\x1b[31mred",
            b"\xff\xfe",
            b"-rf",
            b" ",
            "ä".encode(),
            b"a" * 255,
        ]
        for name in names:
            (self.place.origin.path / os.fsdecode(name)).write_bytes(name)
        self.place.check_out(self.place.origin.commit())
        found = sorted(os.fsencode(path.name) for path in self.path.iterdir())
        self.assertEqual(sorted([b".git", *names]), found)

    def test_an_empty_commit_leaves_an_empty_folder(self) -> None:
        self.place.commit({"a.py": ""})
        self.place.origin.git("rm", "-q", "a.py")
        self.place.check_out(self.place.origin.commit())
        self.assertEqual([".git"], [path.name for path in self.path.iterdir()])

    def test_a_sha256_repository_is_laid_out(self) -> None:
        self.place.origin = WorkTree(self, self.place.state, "--object-format=sha256")
        self.place.origin.commit("One", {"a.py": "x"})
        self.assertEqual("", self.run_inside("import os; os.system('git status --porcelain; git fsck')"))

    def test_files_belong_to_the_slots_identity(self) -> None:
        self.place.commit({"a/b.py": ""})
        uid = self.place.slot.identity.uid if HAS_BUBBLEWRAP else os.geteuid()
        self.assertEqual({uid}, {path.lstat().st_uid for path in (self.path, *self.path.rglob("*"))})

    def test_a_state_folder_that_is_closed_to_others_is_no_hindrance(self) -> None:
        self.place.state.chmod(0o700)
        self.place.slot.path.chmod(0o700)
        self.place.commit({"a.py": ""})
        self.assertTrue((self.path / "a.py").is_file())

    def test_objects_that_the_mirror_has_lost_are_fetched_again(self) -> None:
        commit = self.place.origin.commit("One", {"a.py": "a\n"})
        self.place.mirror.ensure_commit(str(self.place.origin.path / ".git"), commit)
        blob = self.place.origin.git("rev-parse", "HEAD:a.py")
        lost = self.place.mirror.objects / blob[:2] / blob[2:]
        lost.unlink()
        self.place.check_out(commit)
        self.assertEqual("a\n", (self.path / "a.py").read_text())

    def test_a_checkout_that_was_lost_is_laid_out_anew(self) -> None:
        self.place.commit({"a.py": "a\n"})
        for lost in (self.path, self.place.slot.path / "git"):
            lost.rename(self.place.state / f"lost {lost.name}")
            self.place.check_out(self.commit)
            self.assertEqual("a\n", (self.path / "a.py").read_text())

    def test_an_index_that_was_damaged_is_made_anew(self) -> None:
        self.place.commit({"a.py": "a\n"})
        (self.place.slot.path / "git" / "team.git" / "index").write_bytes(b"DIRC garbage")
        self.place.check_out(self.commit)
        self.assertEqual("a\n", (self.path / "a.py").read_text())

    def test_a_lock_that_a_killed_git_left_is_no_hindrance(self) -> None:
        self.place.commit({"a.py": "a\n"})
        (self.place.slot.path / "git" / "team.git" / "index.lock").write_text("")
        self.place.commit({"a.py": "b\n"})
        self.assertEqual("b\n", (self.path / "a.py").read_text())

    def test_a_commit_larger_than_the_limits_is_the_commits_fault(self) -> None:
        (self.place.origin.path / "big").write_bytes(bytes(3 << 20))
        commit = self.place.origin.commit()
        with self.assertRaisesRegex(ProjectError, "^the commit cannot be checked out: "):
            self.place.check_out(commit, limits=Limits(file_mib=2))

    def test_what_is_no_commit_id_is_refused(self) -> None:
        for name in ("HEAD", "--help", "a" * 39, "g" * 40):
            with self.assertRaisesRegex(CheckoutError, "is no commit id"):
                check_out(self.place.slot, self.place.mirror, name)

    def test_the_users_configuration_is_not_read(self) -> None:
        home = new_folder(self)
        (home / ".gitconfig").write_text("[core]\n\tautocrlf = true\n\thooksPath = /nowhere\n")
        previous = os.environ["HOME"]
        os.environ["HOME"] = str(home)
        self.addCleanup(os.environ.__setitem__, "HOME", previous)
        self.place.commit({"a.py": "a\n"})
        self.assertEqual(b"a\n", (self.path / "a.py").read_bytes())


class TestNothingIsLeft(TestCheckout):
    def setUp(self) -> None:
        super().setUp()
        self.place.origin.commit(
            "One",
            {
                ".gitignore": "*.pyc\nignored/\n",
                "app.py": "x = 1\n",
                "package/__init__.py": "",
                "package/deep/data.txt": "data\n",
            },
        )

    def test_changed_deleted_and_new_files(self) -> None:
        self.assert_undone(
            """
            import pathlib
            pathlib.Path("app.py").write_text("x = 2\\n")
            pathlib.Path("package/__init__.py").unlink()
            pathlib.Path("package/new.py").write_text("")
            """
        )

    def test_a_change_that_hides_behind_the_same_size_and_time(self) -> None:
        self.assert_undone(
            """
            import os
            before = os.stat("app.py")
            with open("app.py", "r+") as file:
                file.write("x = 2\\n")
            os.utime("app.py", ns=(before.st_atime_ns, before.st_mtime_ns))
            """
        )

    def test_ignored_files_byte_code_and_empty_folders(self) -> None:
        self.assert_undone(
            """
            import compileall, os, py_compile
            py_compile.compile("app.py")
            py_compile.compile("app.py", "app.pyc")
            os.makedirs("ignored/more")
            os.makedirs("empty/more")
            """
        )

    def test_byte_code_of_another_commit_does_not_run(self) -> None:
        first = self.commit
        second = self.place.origin.commit("Two", {"app.py": "x = 2\n"})
        script = "import sys; sys.path.insert(0, '.'); import app; print(app.x)"
        shown = []
        for commit in (first, second, first):
            self.place.origin.git("reset", "-q", "--hard", commit)
            shown.append(self.run_inside(script))
        self.assertEqual(["1", "2", "1"], shown)

    def test_closed_files_and_folders(self) -> None:
        self.assert_undone(
            """
            import os
            os.makedirs("closed/more")
            open("closed/more/file", "w").close()
            for name in ("closed/more/file", "closed/more", "closed", "package/deep", "package", "."):
                os.chmod(name, 0)
            """
        )

    def test_modes_of_folders_and_files(self) -> None:
        self.assert_undone(
            """
            import os
            os.chmod("app.py", 0o777)
            os.chmod("package", 0o2777)
            os.chmod("package/deep", 0o1700)
            os.chmod(".", 0o777)
            """
        )

    def test_nested_repositories(self) -> None:
        self.assert_undone(
            """
            import subprocess
            for folder in ("nested", "package/nested", "package"):
                subprocess.run(["git", "init", "-q", folder], check=True)
            subprocess.run(["git", "init", "-q", "--bare", "bare.git"], check=True)
            """
        )

    def test_pipes_and_sockets(self) -> None:
        self.assert_undone(
            """
            import os, socket
            os.mkfifo("pipe")
            os.mkfifo("package/pipe")
            socket.socket(socket.AF_UNIX).bind("package/deep/socket")
            """
        )

    def test_links_in_place_of_files_and_folders_are_not_followed(self) -> None:
        outside = new_folder(self) / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        (outside / "__init__.py").write_text("keep")
        (outside / "deep").mkdir()
        (outside / "deep" / "data.txt").write_text("keep")
        checkout = self.place.check_out(self.commit)
        before = tree_of(checkout.path)
        script = """
            import os, shutil, sys
            shutil.rmtree("package")
            os.symlink(sys.argv[1], "package")
            os.unlink("app.py")
            os.symlink(os.path.join(sys.argv[1], "__init__.py"), "app.py")
            os.symlink(sys.argv[1], "new")
            os.symlink("/", "root")
            os.symlink("loop", "loop")
            """
        self.run_inside(script, str(outside))
        self.place.check_out(self.commit)
        self.assertEqual(before, tree_of(checkout.path))
        self.assertEqual("keep", (outside / "__init__.py").read_text())
        self.assertEqual("keep", (outside / "deep" / "data.txt").read_text())

    def test_a_link_in_place_of_git_is_not_followed(self) -> None:
        outside = new_folder(self) / "outside"
        outside.mkdir()
        (outside / "keep").write_text("")
        outside.chmod(0o777)
        self.run_inside(
            "import os, shutil, sys; shutil.rmtree('.git'); os.symlink(sys.argv[1], '.git')", str(outside)
        )
        self.place.check_out(self.commit)
        self.assertFalse((self.path / ".git").is_symlink())
        self.assertEqual(["keep"], [path.name for path in outside.iterdir()])

    def test_git_tricks(self) -> None:
        self.assert_undone(
            """
            import os, subprocess
            def git(*words):
                subprocess.run(["git", *words], check=True)
            evil = "#!/bin/sh\\ntouch /checkout/ran; touch ran; exit 0\\n"
            os.makedirs(".git/hooks")
            for hook in ("post-checkout", "post-index-change", "fsmonitor-watchman"):
                with open(f".git/hooks/{hook}", "w") as file:
                    file.write(evil)
                os.chmod(f".git/hooks/{hook}", 0o755)
            git("config", "core.fsmonitor", ".git/hooks/post-checkout")
            git("config", "core.worktree", "/tmp")
            git("config", "filter.evil.smudge", "touch ran; cat")
            git("config", "core.attributesFile", ".git/attributes")
            with open(".git/attributes", "w") as file:
                file.write("* filter=evil\\n")
            os.makedirs(".git/info", exist_ok=True)
            with open(".git/info/exclude", "w") as file:
                file.write("*\\n")
            os.unlink(".git/index")
            open("kept", "w").close()
            """
        )

    def test_access_lists_and_attributes_of_folders(self) -> None:
        # An access list as the kernel takes it: version 2, then tag, permission and id of each entry.
        entries = ((0x01, 7, -1), (0x04, 7, -1), (0x20, 7, -1))
        access = (2).to_bytes(4, "little") + b"".join(
            tag.to_bytes(2, "little")
            + allowed.to_bytes(2, "little")
            + (number & 0xFFFFFFFF).to_bytes(4, "little")
            for tag, allowed, number in entries
        )
        try:
            os.setxattr(self.place.state, "system.posix_acl_default", access)
            os.removexattr(self.place.state, "system.posix_acl_default")
        except OSError:
            self.skipTest("this file system has no access lists")
        self.assert_undone(
            f"""
            import os
            os.setxattr("package", "system.posix_acl_default", {access!r})
            os.setxattr("package/deep", "user.note", b"left")
            os.setxattr("app.py", "user.note", b"left")
            """
        )

    def test_flags_of_folders_and_files(self) -> None:
        # As `chattr +SAd` sets them: each later write would wait for the disk, below these folders as well.
        script = """
            import array, fcntl, os
            for path in (".", "package", "app.py"):
                file = os.open(path, os.O_RDONLY)
                flags = array.array("i", [0, 0])
                fcntl.ioctl(file, 0x80086601, flags)
                flags[0] |= 8 | 0x80 | 0x40
                fcntl.ioctl(file, 0x40086602, flags)
            """
        try:
            self.run_inside(script)
        except AssertionError:
            self.skipTest("the file system of this folder has no flags")
        self.assert_undone(script)

    def test_names_that_are_hard_to_say(self) -> None:
        self.assert_undone(
            """
            import os
            for name in (b"new\\nline", b"\\xff\\xfe", b"-rf", b"--", b" ", b"\\x1b[2J", b"a" * 255):
                open(name, "wb").close()
                os.mkdir(b"package/" + name)
            """
        )

    def test_folders_too_deep_for_a_path(self) -> None:
        self.place.check_out(self.commit)
        before = tree_of(self.path)
        self.run_inside(
            """
            import os
            for _ in range(3000):
                os.mkdir("deep")
                os.chdir("deep")
            open("file", "w").close()
            """
        )
        self.assertTrue((self.path / "deep").is_dir())
        self.place.check_out(self.commit)
        self.assertEqual(before, tree_of(self.path))

    def test_hard_links_between_files(self) -> None:
        self.assert_undone(
            """
            import os
            os.unlink("package/__init__.py")
            os.link("app.py", "package/__init__.py")
            open("package/__init__.py", "a").write("y = 2\\n")
            """
        )

    def test_a_checkout_that_was_emptied(self) -> None:
        self.assert_undone(
            """
            import os, shutil
            for name in os.listdir():
                shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
            """
        )

    def test_a_folder_in_place_of_a_file_and_the_other_way_round(self) -> None:
        self.assert_undone(
            """
            import os, shutil
            os.unlink("app.py")
            os.makedirs("app.py/app.py")
            shutil.rmtree("package")
            open("package", "w").close()
            """
        )


class TestNothingIsLeftAtTheWeakLevel(TestNothingIsLeft):
    setting = WEAK


class TestCommitsThatAttackGit(TestCheckout):
    def commit_tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A commit whose tree git itself would not make: mode, name, and object of each entry."""
        git = self.place.origin.git
        format_ = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(entry) for mode, name, entry in entries
        )
        file = new_folder(self) / "tree"
        file.write_bytes(format_)
        tree = git("hash-object", "-t", "tree", "-w", "--literally", str(file))
        commit = git("commit-tree", tree, "-m", "Attack")
        git("update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, text: str) -> str:
        return self.place.origin.git("hash-object", "-w", "--stdin", stdin=text)

    def test_paths_that_git_keeps_for_itself_are_the_commits_fault(self) -> None:
        config = self.blob("[core]\n\tfsmonitor = touch /tmp/ran\n")
        inner = self.place.origin.git("mktree", stdin=f"100644 blob {config}\tconfig\n")
        for mode, name, entry in (
            ("40000", b".git", inner),
            ("40000", b".GIT", inner),
            ("40000", b".gIt", inner),
            ("40000", b"git~1", inner),
            ("40000", b".git ", inner),
            ("40000", b".git.", inner),
            ("40000", b".git::$INDEX_ALLOCATION", inner),
            ("120000", b".git", self.blob("/tmp")),
            ("120000", b".GIT", self.blob("/tmp")),
            ("160000", b".git", self.place.origin.commit("Inner")),
            ("120000", b".gitmodules", self.blob("/etc/passwd")),
            ("100644", b"..", config),
            ("100644", b"a/../b", config),
            ("40000", b"..", inner),
        ):
            commit = self.commit_tree((mode, name, entry))
            with self.subTest(name), self.assertRaisesRegex(ProjectError, "cannot be checked out"):
                self.place.check_out(commit)
            self.assertFalse((self.path.parent / "config").exists())

    def test_a_link_and_a_folder_of_one_name_lead_nowhere(self) -> None:
        outside = new_folder(self) / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        payload = self.blob("payload")
        inner = self.place.origin.git("mktree", stdin=f"100644 blob {payload}\tfile\n")
        commit = self.commit_tree(("120000", b"way", self.blob(str(outside))), ("40000", b"way", inner))
        with contextlib.suppress(ProjectError):
            self.place.check_out(commit)
        self.assertEqual([], list(outside.iterdir()))

    def test_a_submodule_below_a_link_is_not_laid_out_behind_it(self) -> None:
        outside = new_folder(self) / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        git = self.place.origin.git
        library = self.place.origin.commit("Library", {"file": "payload"})
        inner = git("mktree", "--missing", stdin=f"160000 commit {library}\tlib\n")
        urls = self.blob('[submodule "a"]\n\tpath = way/lib\n\turl = ./.git\n')
        entries = [("120000", b"way", self.blob(str(outside))), ("40000", b"way", inner)]
        for ordered in (entries, entries[::-1]):
            with contextlib.suppress(ProjectError):
                self.place.check_out(self.commit_tree(("100644", b".gitmodules", urls), *ordered))
            self.assertEqual([], list(outside.iterdir()))

    def test_links_in_the_places_of_gits_own_files_are_not_followed(self) -> None:
        outside = new_folder(self) / "outside"
        outside.write_text("* text eol=crlf\n")
        outside.chmod(0o644)
        entry = self.blob(str(outside))
        self.place.check_out(
            self.commit_tree(
                ("120000", b".gitattributes", entry),
                ("120000", b".gitignore", entry),
                ("100644", b"a.txt", self.blob("a\n")),
            )
        )
        self.assertEqual(b"a\n", (self.path / "a.txt").read_bytes())
        self.assertTrue((self.path / ".gitattributes").is_symlink())

    def test_attributes_run_no_filter(self) -> None:
        self.place.commit(
            {".gitattributes": "* filter=evil diff=evil merge=evil text eol=crlf\n", "a.txt": "a\n"}
        )
        self.assertEqual(b"a\r\n", (self.path / "a.txt").read_bytes())

    def test_a_commit_that_failed_leaves_nothing_to_the_next(self) -> None:
        first = self.place.origin.commit("One", {"a.py": "a\n"})
        self.place.check_out(first)
        before = tree_of(self.path)
        attack = self.commit_tree(("40000", b".git", self.place.origin.git("rev-parse", "HEAD^{tree}")))
        with self.assertRaises(ProjectError):
            self.place.check_out(attack)
        self.place.check_out(first)
        self.assertEqual(before, tree_of(self.path))


class TestGitInside(TestCheckout):
    def setUp(self) -> None:
        super().setUp()
        self.place.origin.commit("One", {"app.py": "x = 1\n"})

    def test_each_run_has_a_repository_of_its_own(self) -> None:
        script = """
            import subprocess
            def git(*words):
                return subprocess.check_output(["git", *words], text=True).strip()
            print(git("rev-parse", "HEAD"), [git("status", "--porcelain"), git("tag", "--list", "mine")])
            git("-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "Mine")
            git("tag", "mine")
            git("reset", "-q", "--hard", "HEAD~1")
            git("gc", "-q")
            """
        for _ in range(2):
            self.assertEqual(f"{self.commit} ['', '']", self.run_inside(script))

    def test_objects_of_the_mirror_cannot_be_changed(self) -> None:
        script = """
            import os
            [objects] = open(".git/objects/info/alternates").read().splitlines()
            for folder, _, files in os.walk(objects):
                for name in files:
                    assert not os.access(os.path.join(folder, name), os.W_OK), name
                assert not os.access(folder, os.W_OK), folder
            """
        if HAS_BUBBLEWRAP:
            self.run_inside(script)

    def test_git_finds_nothing_to_refresh(self) -> None:
        # A clean index is one that git need not read any file for.
        script = """
            import os, subprocess
            before = os.stat(".git/index").st_mtime_ns
            subprocess.run(["git", "update-index", "--refresh"], check=True)
            subprocess.run(["git", "diff-files", "--exit-code"], check=True)
            """
        self.run_inside(script)
