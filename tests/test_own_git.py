"""The `.git` that tests see: the same for each run, whatever the last one did to it."""

from __future__ import annotations

import os
import stat
import unittest
from collections.abc import Callable
from pathlib import Path

from ciapp.testing.own_git import OwnGit, borrowing_files
from ciapp.testing.slot import Identity
from tests.support.git_repositories import new_folder
from tests.support.sandboxes import Place

HEADS = ("1" * 40, "2" * 40)
ME = Identity(os.geteuid(), os.getegid(), is_own=False, name="test")


def state_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder that a later run could see."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        links = facts.st_nlink if stat.S_ISREG(facts.st_mode) else 0
        attributes = sorted(os.listxattr(path, follow_symlinks=False))
        found[str(path.relative_to(folder))] = (facts.st_mode, links, content, attributes)
    return found


class TestOwnGit(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self) / ".git"
        self.outside = new_folder(self) / "precious"
        self.outside.write_bytes(b"precious")
        self.own = OwnGit(self.folder, ME)
        self.own.lay_out(self.files(0))

    def files(self, number: int) -> dict[str, bytes]:
        tags = f"{HEADS[number]} refs/tags/v{number}\n" * number
        return {
            **borrowing_files(HEADS[number], Path("/objects"), tags),
            "index": b"index" * (9 - 8 * number),
        }

    def test_what_was_left_alone_is_written_into(self) -> None:
        before = {name: (self.folder / name).stat().st_ino for name in self.files(0)}

        self.assertTrue(self.own.is_as_left())
        self.own.lay_out(self.files(1))

        self.assertEqual(self.files(1), {name: (self.folder / name).read_bytes() for name in self.files(1)})
        self.assertEqual(before, {name: (self.folder / name).stat().st_ino for name in self.files(1)})

    def test_other_files_are_made_anew(self) -> None:
        self.own.lay_out({"HEAD": b"ref: refs/heads/main\n"})

        self.assertEqual({".", "HEAD", "objects", "objects/info", "refs"}, state_of(self.folder).keys())

    def test_whatever_was_done_to_it_the_next_run_sees_nothing_of_it(self) -> None:
        fresh = OwnGit(new_folder(self) / ".git", ME)
        fresh.lay_out(self.files(1))
        expected = state_of(fresh._folder)
        head, objects = self.folder / "HEAD", self.folder / "objects"

        def set_back() -> None:
            facts = head.stat()
            head.write_bytes(b"3" * 40 + b"\n")
            os.utime(head, ns=(facts.st_atime_ns, facts.st_mtime_ns))

        def link_folder() -> None:
            os.rename(objects, self.folder.parent / "moved")  # noqa: PTH104
            objects.symlink_to(self.outside.parent)

        def link_file() -> None:
            head.unlink()
            head.symlink_to(self.outside)

        def share() -> None:
            head.unlink()
            os.link(self.outside, head)

        def swap() -> None:
            (self.folder / "index").unlink()
            (self.folder / "config").rename(self.folder / "index")
            (self.folder / "config").write_text("[core]\n")

        done: dict[str, Callable[[], object]] = {
            "a hook": lambda: (self.folder / "hooks").mkdir(),
            "a branch": lambda: (self.folder / "refs" / "main").write_text("1"),
            "an object": lambda: (objects / "ab").mkdir(),
            "a lock": lambda: (self.folder / "index.lock").touch(),
            "a file less": (self.folder / "packed-refs").unlink,
            "content with its time set back": set_back,
            "a mode": lambda: head.chmod(0o777),
            "a folder's mode": lambda: objects.chmod(0o700),
            "an attribute": lambda: os.setxattr(head, "user.mark", b"1"),
            "a folder's attribute": lambda: os.setxattr(objects, "user.mark", b"1"),
            "a second name": lambda: os.link(head, self.folder.parent / "second"),
            "a link in a folder's place": link_folder,
            "a link in a file's place": link_file,
            "a file of others in a file's place": share,
            "files that changed places": swap,
            "a pipe in a file's place": lambda: (head.unlink(), os.mkfifo(head)),
        }
        for name, do in done.items():
            with self.subTest(name):
                self.own.lay_out(self.files(0))
                do()
                self.assertFalse(self.own.is_as_left())
                self.own.lay_out(self.files(1))
                self.assertEqual(expected, state_of(self.folder))
                self.assertTrue(self.own.is_as_left())
                self.assertEqual(b"precious", self.outside.read_bytes())


class TestInASlot(unittest.TestCase):
    def test_it_is_kept_from_commit_to_commit_and_names_each(self) -> None:
        place = Place(self)
        first = place.commit({"a.txt": "1\n"})
        inode = (first.path / ".git").stat().st_ino

        second = place.commit({"a.txt": "2\n", "b.txt": ""})

        self.assertEqual(inode, (second.path / ".git").stat().st_ino)
        self.assertEqual(f"{second.commit}\n", (second.path / ".git" / "HEAD").read_text())
        self.assertIn(b"b.txt", (second.path / ".git" / "index").read_bytes())


if __name__ == "__main__":
    unittest.main()
