"""tests/drill/damaging.py: what is damaged is so for git, and is whole again after that."""

from __future__ import annotations

import unittest
from pathlib import Path

from tests.drill.damaging import damaged, moved
from tests.support.git_repositories import git, new_folder


class TestDamage(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.bare = self.folder / "team.git"
        git(self.folder, "init", "--quiet", "--bare", str(self.bare))
        self.blob = git(self.bare, "hash-object", "-w", "--stdin", stdin="much " * 1000)
        self.file = self.bare / "objects" / self.blob[:2] / self.blob[2:]
        self.aside = self.folder / "aside"

    def assert_readable(self, *, is_so: bool) -> None:
        try:
            git(self.bare, "cat-file", "blob", self.blob)
        except AssertionError:
            self.assertFalse(is_so)
        else:
            self.assertTrue(is_so)

    def assert_as_before(self, file: Path, whole: bytes, mode: int) -> None:
        self.assertEqual((whole, mode), (file.read_bytes(), file.stat().st_mode))
        self.assertEqual([self.bare], list(self.folder.iterdir()))
        self.assert_readable(is_so=True)

    def test_an_object_that_is_empty_cut_off_or_other_bytes_cannot_be_read(self) -> None:
        whole, mode = self.file.read_bytes(), self.file.stat().st_mode
        contents = set()
        for victim in range(3):
            with damaged(self.file, self.aside, victim):
                contents.add(self.file.read_bytes())
                self.assertEqual(mode, self.file.stat().st_mode)
                self.assert_readable(is_so=False)
            self.assert_as_before(self.file, whole, mode)
        self.assertEqual(3, len(contents - {whole}))

    def test_a_pack_that_is_elsewhere_cannot_be_read(self) -> None:
        git(self.bare, "update-ref", "refs/tags/blob", self.blob)
        git(self.bare, "repack", "--quiet", "-a", "-d")
        [pack] = (self.bare / "objects/pack").glob("*.pack")
        whole, mode = pack.read_bytes(), pack.stat().st_mode
        for block in (moved, damaged):
            with block(pack, self.aside, 0):
                self.assert_readable(is_so=False)
            self.assert_as_before(pack, whole, mode)

    def test_what_was_damaged_is_whole_again_after_an_error(self) -> None:
        whole, mode = self.file.read_bytes(), self.file.stat().st_mode
        for block in (moved, damaged):
            with self.assertRaises(OSError), block(self.file, self.aside, 0):
                raise OSError
            self.assert_as_before(self.file, whole, mode)


if __name__ == "__main__":
    unittest.main()
