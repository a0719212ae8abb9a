"""Which Pythons of a host are found, and which are left alone, with real interpreters under other names."""

from __future__ import annotations

import os
import subprocess
import unittest
from pathlib import Path
from unittest import mock

from ciapp.settings import Settings
from ciapp.testing import interpreters, sandbox
from ciapp.testing.environment import default_python
from ciapp.testing.interpreters import Found, find_interpreters, minor_version
from tests.support.git_repositories import new_folder
from tests.support.samples import find_pythons
from tests.support.services import need

OWN = minor_version(default_python().version)


def answer(kind: str, flags: str, version: str) -> str:
    """What a script prints that tells of itself what a Python does."""
    return r"printf '%s\000%s\000%s\000/x\000/x\000/x' " + f"'{kind}' '{flags}' '{version}'"


class TestInterpreters(unittest.TestCase):
    """A host with an empty PATH, and no pyenv and no uv but what a test puts there."""

    def setUp(self) -> None:
        self.pythons = find_pythons()
        others = [one for one in self.pythons if minor_version(one.version) != OWN]
        if not others:
            need("another Python", f"this machine has none but {OWN}")
        self.other = others[-1].path.resolve()
        self.version = minor_version(others[-1].version)
        self.folder = new_folder(self)
        self.path = self.folder / "path"
        self.path.mkdir()
        places = {
            "PATH": f"relative:{self.path}:{self.folder / 'pyenv' / 'shims'}:/nowhere",
            "PYENV_ROOT": str(self.folder / "pyenv"),
            "UV_PYTHON_INSTALL_DIR": str(self.folder / "uv"),
        }
        patch = mock.patch.dict(os.environ, places)
        patch.start()
        self.addCleanup(patch.stop)

    def find(self, *wanted: str) -> Found:
        interpreters._find.cache_clear()
        self.addCleanup(interpreters._find.cache_clear)
        return find_interpreters(Settings(pythons=list(wanted), state_dir=str(self.folder)))

    def programs(self, *wanted: str) -> dict[str, Path]:
        return {
            version: one.python for version, one in self.find(*(wanted or ("auto",))).interpreters.items()
        }

    def put(self, folder: Path, program: Path, name: str = "") -> Path:
        """A link to a program, by the name that its version has."""
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / (name or f"python{self.version}")
        link.symlink_to(program)
        return link

    def script(self, text: str, name: str = "") -> Path:
        file = self.path / (name or f"python{self.version}")
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return file

    def test_the_workers_own_is_always_there_and_is_the_program_itself(self) -> None:
        self.assertEqual({OWN: default_python()}, dict(self.find("auto").interpreters))
        self.script("exit 3", f"python{OWN}")
        self.assertEqual({OWN: default_python()}, dict(self.find("auto").interpreters))

    def test_they_are_found_on_the_path_and_among_those_of_pyenv_and_uv(self) -> None:
        for folder in (
            self.path,
            self.folder / f"pyenv/versions/{self.version}.1/bin",
            self.folder / "uv/c/bin",
        ):
            with self.subTest(folder):
                link = self.put(folder, self.other)
                found = self.find("auto").interpreters
                self.assertEqual({OWN, self.version}, set(found))
                self.assertEqual(self.other, found[self.version].python)
                self.assertTrue(found[self.version].version.startswith(f"{self.version}."))
                self.assertTrue(self.other.is_relative_to(found[self.version].readable[0]))
                link.unlink()

    def test_versions_are_in_their_order(self) -> None:
        for python in self.pythons:
            if minor_version(python.version) != OWN:
                self.put(self.path, python.path, f"python{minor_version(python.version)}")
        found = list(self.programs())
        self.assertEqual([minor_version(python.version) for python in self.pythons], found)

    def test_a_shim_that_leads_nowhere_gives_way_to_the_next(self) -> None:
        self.script("echo 'command not found' >&2; exit 127")
        self.assertEqual({OWN}, set(self.programs()))
        self.put(self.folder / "uv/c/bin", self.other)
        self.assertEqual(self.other, self.programs()[self.version])

    def test_shims_of_pyenv_are_not_even_started(self) -> None:
        shims = self.folder / "pyenv" / "shims"
        shims.mkdir(parents=True)
        self.script(f"true >{self.folder / 'started'}; exit 127").rename(shims / f"python{self.version}")
        self.find("auto")
        self.assertFalse((self.folder / "started").exists())

    def test_a_program_that_is_not_what_its_name_says_is_left_alone(self) -> None:
        self.put(self.path, self.other, "python3.99")
        self.assertEqual({OWN}, set(self.programs()))

    def test_pypy_and_builds_without_the_gil_are_left_alone(self) -> None:
        for kind, flags in (("pypy", ""), ("cpython", "t"), ("cpython", "td")):
            with self.subTest(kind, flags=flags):
                self.script(answer(kind, flags, f"{self.version}.1"))
                self.assertEqual({OWN}, set(self.programs()))

    def test_of_a_virtual_environment_its_base_is_taken(self) -> None:
        venv = self.folder / "venv"
        subprocess.run([self.other, "-m", "venv", "--without-pip", str(venv)], check=True)
        self.put(self.path, venv / "bin" / "python")
        self.assertEqual(self.other, self.programs()[self.version])

    def test_nothing_runs_that_is_installed_there(self) -> None:
        venv, ran = self.folder / "venv", self.folder / "ran"
        subprocess.run([self.other, "-m", "venv", "--without-pip", str(venv)], check=True)
        [packages] = venv.glob("lib/*/site-packages")
        (packages / "eager.pth").write_text(f"import pathlib; pathlib.Path({str(ran)!r}).touch()\n")
        python = venv / "bin" / "python"
        self.assertEqual({self.version: self.other}, self.programs(str(python)))
        self.assertFalse(ran.exists())
        subprocess.run([python, "-c", ""], check=True)
        self.assertTrue(ran.exists(), "it would have run")

    def test_the_newest_of_pyenvs_is_taken(self) -> None:
        old, new = (self.folder / f"pyenv/versions/{self.version}.{patch}/bin" for patch in (9, 10))
        for folder, said in ((old, "old"), (new, "new")):
            folder.mkdir(parents=True)
            self.script(f"true >{self.folder / said}; exit 1").rename(folder / f"python{self.version}")
        self.put(self.folder / "uv/c/bin", self.other)
        asked: list[Path] = []
        ask = interpreters._ask
        with mock.patch.object(interpreters, "_ask", side_effect=lambda one: asked.append(one) or ask(one)):
            self.assertEqual(self.other, self.programs()[self.version])
        asked = [one for one in asked if one.name == f"python{self.version}"]
        self.assertEqual([new, old], [one.parent for one in asked[:2]])

    def test_versions_that_the_setting_names_are_the_only_ones(self) -> None:
        self.put(self.path, self.other)
        self.assertEqual({self.version: self.other}, self.programs(self.version))
        self.assertEqual({}, self.programs("3.99"))
        self.assertEqual(
            ("Python 3.99 is neither on the PATH nor among those of pyenv and uv",),
            self.find("auto", "3.99").complaints,
        )

    def test_programs_that_the_setting_names_come_before_what_is_found(self) -> None:
        link = self.put(self.folder, self.other, "my-python")
        self.script("exit 1")
        self.assertEqual({self.version: self.other}, self.programs(str(link)))
        self.assertEqual({OWN, self.version}, set(self.programs("auto", str(link))))

    def test_a_program_that_is_named_and_cannot_be_used_is_complained_about(self) -> None:
        not_one = self.script("echo hello", "hello")
        old = self.script(answer("cpython", "m", "3.7.1"), "old")
        complaints = self.find("/nowhere", str(not_one), str(old)).complaints
        self.assertEqual(
            (
                "/nowhere cannot be started: No such file or directory",
                f"{not_one} is no Python that works",
                f"{old} is Python 3.7.1; the oldest that is supported is 3.8",
            ),
            complaints,
        )

    def test_one_that_tests_could_not_start_is_left_out_and_complained_about(self) -> None:
        self.put(self.path, self.other)
        own = default_python().python
        closed = mock.patch.object(interpreters, "can_reach", lambda setting, state, program: program == own)
        with closed:
            found = self.find("auto")
        self.assertEqual({OWN}, set(found.interpreters))
        self.assertEqual(
            (f"{self.other} is closed to other users, as whom tests run on this host",), found.complaints
        )

    @unittest.skipUnless(os.geteuid() == 0, "only root runs tests as somebody else")
    def test_without_bubblewrap_what_is_closed_to_others_cannot_be_reached(self) -> None:
        state, inside = self.folder / "state", self.folder / "closed"
        for folder in (state, inside):
            folder.mkdir(mode=0o755)
        self.folder.chmod(0o755)
        with mock.patch.object(sandbox, "_interpreter", return_value=Path("/usr/bin/python3")):
            self.assertTrue(sandbox.can_reach("off", state, inside / "python"))
            inside.chmod(0o700)
            self.assertFalse(sandbox.can_reach("off", state, inside / "python"))


if __name__ == "__main__":
    unittest.main()
