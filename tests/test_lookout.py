"""Pythons that are installed or removed while a worker runs."""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from unittest import mock

from ciapp import lookout
from ciapp.lookout import Lookout
from ciapp.settings import Settings
from ciapp.testing import interpreters
from ciapp.testing.environment import default_python
from ciapp.testing.interpreters import Found, minor_version
from tests.support.git_repositories import new_folder
from tests.support.samples import find_pythons
from tests.support.services import need

OWN = minor_version(default_python().version)


class TestLookout(unittest.TestCase):
    """A host whose PATH is one folder."""

    def setUp(self) -> None:
        others = [one for one in find_pythons() if minor_version(one.version) != OWN]
        if not others:
            need("another Python", f"this machine has none but {OWN}")
        self.version = minor_version(others[-1].version)
        self.program = others[-1].path.resolve()
        self.folder = new_folder(self)
        places = {"PATH": str(self.folder), "PYENV_ROOT": "/nowhere", "UV_PYTHON_INSTALL_DIR": "/nowhere"}
        self.enterContext(mock.patch.dict(os.environ, places))
        self.enterContext(mock.patch.object(lookout, "LOOK_EVERY_S", 0.0))
        self.addCleanup(interpreters._find.cache_clear)
        interpreters._find.cache_clear()
        self.told: list[str] = []
        self.lookout = Lookout(
            Settings(state_dir=str(self.folder)),
            lambda environment: self.told.append(f"+{environment}"),
            lambda environment: self.told.append(f"-{environment}"),
        )
        self.own = ("default", f"python{OWN}")

    def install(self, text: str = "") -> Path:
        program = self.folder / f"python{self.version}"
        script = text or f'exec {self.program} "$@"'
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    def test_one_that_is_installed_is_taken_up_once_and_dropped_when_it_is_gone(self) -> None:
        self.assertEqual(self.own, self.lookout.environments())
        program = self.install()
        for _ in range(2):
            self.assertEqual({*self.own, f"python{self.version}"}, set(self.lookout.environments()))
        self.assertEqual([f"+python{self.version}"], self.told)
        program.unlink()
        # It might have been too busy to answer, once.
        self.assertIn(f"python{self.version}", self.lookout.environments())
        self.assertEqual(self.own, self.lookout.environments())
        self.assertEqual([f"+python{self.version}", f"-python{self.version}"], self.told)

    def test_one_that_does_not_work_yet_is_asked_again(self) -> None:
        program = self.install("exit 1")
        os.utime(program, (1, 1))
        self.assertEqual(self.own, self.lookout.environments())
        content = program.stat()
        self.install()
        os.utime(program, (1, 1))
        self.assertEqual(content.st_ino, program.stat().st_ino)
        self.assertIn(f"python{self.version}", self.lookout.environments())

    def test_while_nothing_changes_it_asks_less_and_less_often_and_at_last_no_more(self) -> None:
        asked, moments = [], [*range(10_000)]

        def ask(settings: Settings) -> Found:
            asked.append(moments[0])
            return interpreters.look_again(settings)

        with mock.patch.object(lookout, "LOOK_EVERY_S", 10.0), mock.patch.object(lookout, "look_again", ask):
            watched = Lookout(
                Settings(state_dir=str(self.folder)), self.told.append, self.told.append, lambda: moments[0]
            )
            self.install()
            while len(moments) > 1:
                watched.environments()
                moments.pop(0)

        self.assertEqual([10, 20, 40, 80, 160, 320], asked)
        self.assertEqual([f"python{self.version}"], self.told)

    def test_a_process_that_looked_before_finds_it_when_it_is_wanted(self) -> None:
        settings = Settings(state_dir=str(self.folder))
        interpreters.find_interpreters(settings)
        self.install()
        found = interpreters.find_interpreter(f"python{self.version}", settings)
        self.assertEqual(self.version, minor_version(found.version))


if __name__ == "__main__":
    unittest.main()
