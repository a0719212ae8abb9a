"""Wheels from hands that are not trusted, and what stands in for them."""

from __future__ import annotations

import os
import unittest
import zipfile
from pathlib import Path

from ciapp.errors import ProjectError
from ciapp.testing.requirements import LocalProject
from ciapp.testing.wheels import Wheel, requirement, take_wheel, write_stub
from tests.support.git_repositories import new_folder
from tests.support.package_index import wheel

METADATA = (
    "Requires-Python: >=3.8",
    "Requires-Dist: alpha; extra == 'test'",
    "Provides-Extra: Test_",
    "Summary: a project",
    "",
    "Requires-Dist: a line of the description",
)


class TestWheels(unittest.TestCase):
    def setUp(self):
        self.folder = new_folder(self)
        self.claims = self.folder / "claims"
        self.claims.mkdir()

    def take(self, version: str = "1.0", metadata: tuple[str, ...] = METADATA) -> Wheel:
        name, content = wheel("a_b", version, metadata=metadata)
        (self.claims / name).write_bytes(content)
        (self.folder / version).mkdir(exist_ok=True)
        (self.folder / version / name).unlink(missing_ok=True)
        return take_wheel(self.claims / name, self.folder / version)

    def refused(self, name: str, sentence: str) -> None:
        with self.assertRaisesRegex(ProjectError, f"the project cannot be built: {sentence}"):
            take_wheel(self.claims / name, self.folder)

    def test_a_wheel_tells_what_it_requires(self):
        taken = self.take()
        self.assertEqual(("a-b", "1.0", ("test-",)), (taken.name, taken.version, taken.extras))
        self.assertIn("Requires-Dist: alpha; extra == 'test'\n", taken.requiring)
        self.assertNotIn("Summary", taken.requiring)
        self.assertNotIn("description", taken.requiring)

    def test_wheels_that_require_the_same_are_told_by_their_digests(self):
        summary = (*METADATA[:3], "Summary: another")
        self.assertEqual(self.take().requiring_digest, self.take(metadata=summary).requiring_digest)
        self.assertNotEqual(self.take().requiring_digest, self.take(metadata=METADATA[1:]).requiring_digest)

    def test_a_stub_requires_the_same_and_holds_nothing(self):
        file = write_stub(self.take(), self.folder)
        self.assertEqual("a_b-1.0-py3-none-any.whl", file.name)
        with zipfile.ZipFile(file) as archive:
            self.assertEqual(
                ["a_b-1.0.dist-info/"], sorted({f"{Path(name).parent}/" for name in archive.namelist()})
            )
        (self.folder / "again").mkdir()
        self.assertEqual(self.take().requiring, take_wheel(file, self.folder / "again").requiring)

    def test_it_is_asked_for_with_its_extras(self):
        taken = self.take()
        project = LocalProject(
            path=".", extras=("doc",), first_of=("tests", "test-"), marker="os_name == 'x'"
        )
        self.assertEqual(
            "a-b[doc,test-] @ file:///x ; os_name == 'x'", requirement(project, taken, "file:///x")
        )
        self.assertEqual("a-b @ file:///x", requirement(LocalProject(path="."), taken, "file:///x"))

    def test_what_is_no_wheel_is_refused(self):
        self.refused("a.whl", "'a.whl' is no name of a wheel")
        name = "a-1-py3-none-any.whl"
        self.refused(name, f"{name} is no wheel: .*No such file")
        (self.claims / name).write_text("PK")
        self.refused(name, f"{name} is no wheel")

    def test_a_link_a_pipe_and_a_folder_are_not_read(self):
        names = [f"a-{number}-py3-none-any.whl" for number in range(3)]
        (self.claims / names[0]).symlink_to("/etc/hostname")
        os.mkfifo(self.claims / names[1])
        (self.claims / names[2]).mkdir()
        for name in names:
            with self.subTest(name):
                self.refused(name, f"{name} is no wheel")

    def test_metadata_that_is_missing_or_twice_there_is_refused(self):
        for number, entries in enumerate((["x"], ["a.dist-info/METADATA", "b.dist-info/METADATA"])):
            name = f"a-{number}-py3-none-any.whl"
            with zipfile.ZipFile(self.claims / name, "w") as archive:
                for entry in entries:
                    archive.writestr(entry, "")
            with self.subTest(entries):
                self.refused(name, f"{name} is no wheel")


if __name__ == "__main__":
    unittest.main()
