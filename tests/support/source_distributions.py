"""Source distributions of real projects, from the package registry, kept from one run to the next.

pip asks a project's build backend about its dependencies, although none are wanted, and would make an
environment for that each time. So the backends are installed once, beside a pip that is told to use them.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ciapp.testing.environment import default_python
from ciapp.testing.uv import uv_program
from tests.support.archives import unpack
from tests.support.services import need

BACKENDS = ("pip", "setuptools", "setuptools-scm", "wheel", "flit-core", "hatchling", "poetry-core")
#: What can be made anew at any time.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ciapp-tests", "sources")


def unpack_source(project: str, folder: Path) -> Path:
    """The unpacked source distribution of a project, "name==version"; skips where it cannot be had."""
    archive = CACHE / f"{project}.tar.gz"
    if not archive.exists():
        with _alone():
            if not archive.exists():
                _download(project, archive)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as packed:
        unpack(packed, folder)
    [unpacked] = folder.iterdir()
    return unpacked


def _download(project: str, archive: Path) -> None:
    python = _tools()
    into = archive.with_suffix(".new")
    words = ["download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary=:all:"]
    _run([str(python), "-m", "pip", *words, "--dest", str(into), project])
    [downloaded] = into.glob("*.tar.gz")
    downloaded.rename(archive)
    into.rmdir()


def _tools() -> Path:
    """A Python with pip and the build backends, made at the first call."""
    venv = CACHE / "tools"
    python, done = venv / "bin" / "python", venv / "done"
    if not done.exists() or done.read_text() != " ".join(BACKENDS):
        _run(
            [
                str(uv_program()),
                "venv",
                "--quiet",
                "--clear",
                "--python",
                str(default_python().python),
                str(venv),
            ]
        )
        _run([str(uv_program()), "pip", "install", "--quiet", "--python", str(python), *BACKENDS])
        done.write_text(" ".join(BACKENDS))
    return python


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        need("the package registry", ended.stderr[-300:])


@contextmanager
def _alone() -> Iterator[None]:
    """While no other process downloads."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
