from __future__ import annotations

import socket
import unittest

from ciapp.errors import CheckoutError, ProjectError
from ciapp.testing.submodules import resolve_url
from tests.support.git_repositories import WorkTree, git, new_folder
from tests.support.sandboxes import Place, run_python


class TestURLs(unittest.TestCase):
    def test_remote_protocols_are_taken_as_they_are(self) -> None:
        for url in (
            "https://example.org/lib.git",
            "http://example.org/lib",
            "ssh://git@example.org:22/lib.git",
            "git://example.org/lib",
            "git@example.org:group/lib.git",
        ):
            self.assertEqual(url, resolve_url(url, "/srv/git/team.git"))

    def test_a_relative_url_starts_from_where_its_repository_was_cloned(self) -> None:
        for clone_url, url, expected in (
            ("https://example.org/a/team.git", "../lib.git", "https://example.org/a/lib.git"),
            ("https://example.org/a/team.git", "../../b/lib.git", "https://example.org/b/lib.git"),
            ("https://example.org/a/team.git", "./lib", "https://example.org/a/team.git/lib"),
            ("git@example.org:a/team.git", "../lib.git", "git@example.org:a/lib.git"),
            ("ssh://example.org/team.git", "../../../lib", "ssh://example.org/lib"),
            ("/srv/git/team.git", "../lib.git", "/srv/git/lib.git"),
            ("/srv/git/team/.git", "../lib", "/srv/git/lib"),
        ):
            self.assertEqual(expected, resolve_url(url, clone_url))

    def test_what_could_run_programs_or_read_the_host_is_refused(self) -> None:
        for url in (
            "ext::sh -c 'touch ran'",
            "file:///srv/git/other.git",
            "/srv/git/other.git",
            "--upload-pack=touch",
            "-oProxyCommand=touch@example.org:x",
            "ssh://-oProxyCommand=touch/x",
            "git@-oProxyCommand=touch:x",
            "fd::3",
            "C:\\lib",
            "",
            "https://example.org/a b",
        ):
            with self.subTest(url), self.assertRaisesRegex(ProjectError, "is not allowed"):
                resolve_url(url, "/srv/git/team.git")

    def test_a_path_may_not_leave_the_folder_of_the_repository(self) -> None:
        for url in ("../../home/lib.git", "../.", "../..", "../../../../etc"):
            with self.subTest(url), self.assertRaisesRegex(ProjectError, "leads out of the folder"):
                resolve_url(url, "/srv/git/team.git")

    def test_a_link_is_no_way_out_either(self) -> None:
        folder = new_folder(self)
        (folder / "git").mkdir()
        (folder / "git" / "out").symlink_to(folder)
        with self.assertRaisesRegex(ProjectError, "leads out of the folder"):
            resolve_url("../out/lib.git", str(folder / "git" / "team.git"))


class TestSubmodules(unittest.TestCase):
    def setUp(self) -> None:
        folder = new_folder(self)
        self.place = Place(self)
        self.place.origin.path = folder / "team"
        git(folder, "init", "-q", "-b", "main", "team")
        self.library = WorkTree(self, folder)
        self.library.path = folder / "library"
        git(folder, "init", "-q", "-b", "main", "library")

    def commit_with_submodule(self, commit: str, url: str = "../library", path: str = "lib") -> str:
        origin = self.place.origin
        origin.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        (origin.path / ".gitmodules").write_text(f'[submodule "library"]\n\tpath = {path}\n\turl = {url}\n')
        origin.git("add", ".gitmodules")
        origin.git("commit", "-q", "-m", "Use the library")
        return origin.git("rev-parse", "HEAD")

    def test_a_submodules_commit_is_laid_out(self) -> None:
        first = self.library.commit("One", {"lib.py": "x = 1\n"})
        second = self.library.commit("Two", {"lib.py": "x = 2\n", "more.py": ""})
        for library, files in ((second, {"lib.py", "more.py"}), (first, {"lib.py"})):
            checkout = self.place.check_out(self.commit_with_submodule(library))
            self.assertEqual(files, {path.name for path in (checkout.path / "lib").iterdir()})
        self.assertEqual("x = 1\n", (checkout.path / "lib" / "lib.py").read_text())

    def test_what_tests_left_in_it_is_gone(self) -> None:
        commit = self.commit_with_submodule(self.library.commit("One", {"lib.py": "x = 1\n"}))
        checkout = self.place.check_out(commit)
        script = """
import os, subprocess
open("lib/lib.py", "w").write("x = 2")
os.makedirs("lib/__pycache__")
subprocess.run(["git", "init", "-q", "lib"], check=True)
"""
        ended = run_python(self.place.open(checkout), script)
        self.assertEqual(0, ended.status, ended.output)
        self.place.check_out(commit)
        self.assertEqual(["lib.py"], [path.name for path in (checkout.path / "lib").iterdir()])
        self.assertEqual("x = 1\n", (checkout.path / "lib" / "lib.py").read_text())

    def test_it_goes_with_the_commit_that_drops_it(self) -> None:
        self.place.check_out(self.commit_with_submodule(self.library.commit("One", {"lib.py": ""})))
        self.place.origin.git("rm", "-q", "--cached", "lib", ".gitmodules")
        (self.place.origin.path / ".gitmodules").unlink()
        checkout = self.place.commit({"app.py": ""})
        self.assertEqual({".git", "app.py"}, {path.name for path in checkout.path.iterdir()})

    def test_submodules_of_submodules_are_laid_out(self) -> None:
        inner = WorkTree(self, self.library.path)
        inner.path = self.library.path.parent / "inner"
        git(inner.path.parent, "init", "-q", "inner")
        commit = inner.commit("One", {"inner.py": ""})
        self.library.git("update-index", "--add", "--cacheinfo", f"160000,{commit},deep/inner")
        (self.library.path / ".gitmodules").write_text(
            '[submodule "x"]\n\tpath = deep/inner\n\turl = ../inner\n'
        )
        self.library.git("add", ".gitmodules")
        self.library.git("commit", "-q", "-m", "Nest")
        checkout = self.place.check_out(self.commit_with_submodule(self.library.git("rev-parse", "HEAD")))
        self.assertTrue((checkout.path / "lib" / "deep" / "inner" / "inner.py").is_file())

    def test_one_that_cannot_be_had_is_the_commits_fault(self) -> None:
        for commit, url, said in (
            ("1" * 40, "../library", "^submodule 'lib': 1{40} cannot be fetched"),
            (self.library.commit(), "../nowhere", "^submodule 'lib': .*nowhere"),
            (self.library.commit(), "ext::sh", "is not allowed"),
        ):
            with self.subTest(url), self.assertRaisesRegex(ProjectError, said):
                self.place.check_out(self.commit_with_submodule(commit, url))

    def test_one_whose_host_is_away_is_told_with_what_was_in_the_way(self) -> None:
        nobody_listens = socket.create_server(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        nobody_listens.close()
        for kind in ("git", "http", "ssh"):
            url = f"{kind}://127.0.0.1:{port}/library"
            said = "^submodule 'lib': .*(refused|connect)"
            with self.subTest(kind), self.assertRaisesRegex(ProjectError, said):
                self.place.check_out(self.commit_with_submodule("1" * 40, url))

    def test_trouble_of_this_hosts_is_not_the_commits_fault(self) -> None:
        commit = self.commit_with_submodule(self.library.commit())
        self.place.state.joinpath("mirrors").mkdir(exist_ok=True)
        (self.place.state / "mirrors" / "submodules").write_text("in the way")
        with self.assertRaisesRegex(CheckoutError, "submodules/.* cannot be written: "):
            self.place.check_out(commit)

    def test_one_without_a_url_is_told(self) -> None:
        self.commit_with_submodule(self.library.commit())
        self.place.origin.git("rm", "-q", "--cached", ".gitmodules")
        self.place.origin.git("commit", "-q", "-m", "Forget")
        commit = self.place.origin.git("rev-parse", "HEAD")
        with self.assertRaisesRegex(ProjectError, "^submodule 'lib' has no URL in .gitmodules$"):
            self.place.check_out(commit)

    def test_git_takes_the_checkout_for_clean(self) -> None:
        checkout = self.place.check_out(
            self.commit_with_submodule(self.library.commit("One", {"lib.py": ""}))
        )
        script = "import subprocess; subprocess.run(['git', 'status', '--porcelain'], check=True)"
        self.assertEqual((0, ""), run_python(self.place.open(checkout), script)[:2])
