"""The README's first command, word for word, as somebody types it who has just cloned this repository."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import unittest
from pathlib import Path

import pytest

from tests.support.git_repositories import new_folder
from tests.support.installation import CODE, eventually
from tests.support.services import need

README = (CODE / "README.md").read_text("utf-8")
[COMMAND] = re.findall(r"^```sh\n(.*&& \.venv/bin/ciapp demo)\n```", README, re.MULTILINE)
REGISTRY_IS_AWAY = re.compile(
    "No matching distribution|Could not fetch|Connection|Max retries|Temporary failure"
)
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache")


class TestFirstScreen(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.folder.chmod(0o755)
        self.tree, self.home, self.temporary = (self.folder / name for name in ("ciapp", "home", "tmp"))
        self.home.mkdir()
        self.temporary.mkdir(mode=0o755)

    def run_on_a_terminal(self, command: str) -> tuple[int, str]:
        """The exit code of a shell's command, and all that its terminal showed."""
        home = Path.home()
        kept = {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "http"))
        }
        environment = {
            **kept,
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "TERM": "xterm",
            # pip's own: where the registry is, and what it has fetched before.
            "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", str(home / ".config")),
            "PIP_CACHE_DIR": str(home / ".cache" / "pip"),
            # pip asks rustc for its version, and rustup makes a folder at home.
            "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(home / ".rustup")),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        shell = subprocess.Popen(
            ["sh", "-c", command],
            env=environment,
            cwd=self.tree,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        # A terminal that nobody writes to any more ends with an error.
        with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:
            while read := terminal.read(4096):
                shown += read
        return shell.wait(), shown.decode().replace("\r\n", "\n")

    def survivors(self) -> list[str]:
        mark, found = f"TMPDIR={self.temporary}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    @pytest.mark.slow  # half a minute of processor time, nearly all of it pip's
    def test_typed_in_a_fresh_clone_it_installs_ciapp_and_shows_all_of_it(self) -> None:
        shutil.copytree(CODE, self.tree, ignore=LEFT_OUT)
        code, shown = self.run_on_a_terminal(COMMAND)
        if code and "== " not in shown and REGISTRY_IS_AWAY.search(shown):
            need("the package registry", shown[-300:])
        self.assertEqual(0, code, shown)
        [installed] = self.tree.glob(".venv/lib/*/site-packages/ciapp/cli.py")
        self.assertTrue(installed.is_file(), "what is shown is the installed program, not the tree's")
        self.assert_shown(shown)
        self.assertIn(".venv/bin/ciapp up", shown, "the next step, by the name that works here")

    def test_its_last_word_shows_all_of_it_on_a_terminal(self) -> None:
        self.tree.mkdir()
        code, shown = self.run_on_a_terminal(f"PYTHONPATH={CODE} {sys.executable} -m ciapp.cli demo")
        self.assertEqual(0, code, shown)
        self.assert_shown(shown)

    def assert_shown(self, shown: str) -> None:
        """A red report and a green one, each after a bar that moved; and nothing is left."""
        self.assertIn("AssertionError: 0 != 0.5", shown)
        red, green = shown.index("FAILED (failures=1)"), shown.index("\n  OK\n")
        self.assertLess(red, green)
        for status in ("failed", "passed"):
            self.assertRegex(shown, rf"(?s)team [0-9a-f]{{12}}  \[-+\] +0%.*\[#+\] +100%  {status} in ")
        eventually(lambda: not self.survivors(), f"no process is left: {self.survivors()}")
        self.assertEqual([[], []], [list(self.temporary.iterdir()), list(self.home.iterdir())])


if __name__ == "__main__":
    unittest.main()
