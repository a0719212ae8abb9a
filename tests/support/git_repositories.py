"""Real git repositories for tests, each made in one line."""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path

#: git as if no user and no machine had configured it; commits are by Ann, at a time of their own.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "CIAPP_"))},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
}


def new_folder(test: unittest.TestCase) -> Path:
    """An empty folder, gone after the test."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Path(folder.name).resolve()


def git(folder: Path, *words: str, stdin: str | bytes = b"", environ: Mapping[str, str] | None = None) -> str:
    """What git printed in a folder, without the last newline; its complaint becomes the exception."""
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        env={**ENVIRONMENT, **(environ or {})},
        capture_output=True,
    )
    if done.returncode:
        raise AssertionError(f"git {' '.join(words)}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


def new_bare_repository(test: unittest.TestCase, name: str = "team.git", *init_options: str) -> Path:
    """An empty bare repository; `init_options` are those of `git init`."""
    path = new_folder(test) / name
    git(path.parent, "init", "--quiet", "--bare", "--initial-branch=main", *init_options, str(path))
    return path


class WorkTree:
    """A repository with a work tree, whose remote `origin` is a given repository."""

    def __init__(self, test: unittest.TestCase, origin: Path, *init_options: str) -> None:
        self.path = new_folder(test)
        git(self.path, "init", "--quiet", "--initial-branch=main", *init_options)
        git(self.path, "remote", "add", "origin", str(origin))

    def git(self, *words: str, stdin: str | bytes = b"", environ: Mapping[str, str] | None = None) -> str:
        """What git printed in the work tree."""
        return git(self.path, *words, stdin=stdin, environ=environ)

    def commit(self, subject: str = "Change", files: Mapping[str, str] | None = None) -> str:
        """Commit, with these files written first; returns the commit's id."""
        for name, content in (files or {}).items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        return self.git("rev-parse", "HEAD")

    def push(self, *words: str, environ: Mapping[str, str] | None = None) -> str:
        """Push to `origin`; returns what the pusher's terminal shows."""
        done = subprocess.run(
            ["git", "push", "origin", *words],
            cwd=self.path,
            env={**ENVIRONMENT, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        shown = done.stderr.decode("utf-8", "replace")
        if done.returncode:
            raise AssertionError(f"git push {' '.join(words)}: {shown}")
        return shown
