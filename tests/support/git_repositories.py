"""Repositories for tests, built in one line each by real git.

    origin = GitRepository(folder)
    first = origin.commit({"app.py": "x = 1\\n"})
    second = origin.commit({"app.py": None, "tests/test_app.py": "..."}, subject="Drop app")

Nothing of the user's git configuration reaches them, and instants are fixed, so ids are the same each time.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

Content = str | bytes | None  #: None: the file is deleted

ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}
FIRST_COMMIT_AT = 1_700_000_000  #: seconds since the epoch; each commit is made a minute after the one before


class GitRepository:
    """A repository with a work tree, whose commits are made one call each."""

    def __init__(self, path: Path, *, object_format: str = "sha1") -> None:
        self.path = path
        self._commits = 0
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main", f"--object-format={object_format}")

    @property
    def git_dir(self) -> Path:
        """Where a clone is taken from."""
        return self.path / ".git"

    def git(self, *words: str, stdin: bytes | None = None) -> str:
        """What git printed, without its last newline."""
        at = f"{FIRST_COMMIT_AT + 60 * self._commits} +0000"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= ENVIRONMENT | {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at}
        done = subprocess.run(
            ["git", *words], cwd=self.path, env=environment, input=stdin, capture_output=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"git {' '.join(words)}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")

    def write(self, files: Mapping[str, Content]) -> None:
        """Change files of the work tree."""
        for name, content in files.items():
            file = self.path / name
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: Mapping[str, Content] | None = None, *, subject: str = "Change") -> str:
        """Change files and commit everything there is; the commit's id."""
        self.write(files or {})
        self.git("add", "--all", "--force")
        return self.commit_index(subject=subject)

    def commit_index(self, *, subject: str = "Change") -> str:
        """Commit what the index holds, even when nothing changed; the commit's id."""
        self._commits += 1
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")
