"""What the verdict of a run depends on, as a digest: equal fingerprints, equal tests in equal surroundings.

In:  a run, and its suite: the environment is there and the plan is made, so nothing is left to be decided.
Out: a digest; empty where tests can see what no digest can hold.

It covers

- the tree: every file with its mode, each submodule's commit, lock files, and the commit's configuration;
- the plan: what was made of that configuration and of the server's settings, limits among them, and the
  environment by its key; and, for a key says what was asked for and not what came, what is installed in it;
- the interpreter, with the packages that stand beside it;
- what else the sandbox shows: the host's programs and libraries, its /etc, its kernel and processors;
- our own code.

What it says is therefore known only once the checkout is there and the environment is resolved. Both are
quick when they are as before, and then is the only time at which a result can be reused.

At the level `limits`, and with the network, tests can read files and ask servers that nobody can take a
fingerprint of. The commit's own id, message and tags, which tests can ask git for, are left out: an amended
message is the usual reason to reuse a result. A project whose tests do look there says `reuse = false`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import msgspec

from ciapp import __version__
from ciapp.results.runs import Run
from ciapp.testing.bubblewrap import Bubblewrap
from ciapp.testing.etc import COPIED, ETC, shown_folders
from ciapp.testing.suite import Suite
from ciapp.testing.uv import VENV

FORMAT = 2
CODE = Path(__file__).parent.parent  #: whole: what makes a verdict of events stands in several rooms
#: What package managers say is installed on a host.
INSTALLED = (
    Path("/var/lib/dpkg/status"),
    Path("/var/lib/rpm/rpmdb.sqlite"),
    Path("/var/lib/rpm/Packages.db"),
    Path("/var/lib/rpm/Packages"),
    Path("/lib/apk/db/installed"),
)
COPIED_FILES = tuple(ETC / name for name in COPIED)
#: Where a host has programs and libraries that no package manager knows of.
LOCAL_FOLDERS = (Path("/usr/local/bin"), Path("/usr/local/sbin"), Path("/usr/local/lib"))
PACKAGE_FOLDERS = (
    "lib/python*/site-packages",
    "lib/python*/dist-packages",
    "local/lib/python*/dist-packages",
    f"{VENV}/lib/python*/site-packages",
)
#: For so long a host is taken to have the same programs. There are hundreds of them, and what changes when a
#: run has begun is not seen anyway.
LOOK_AGAIN_S = 1.0
#: Files of a distribution that differ each time it is installed, and say nothing of what it is.
TIMES = ("uv_cache.json", "direct_url.json", "INSTALLER", "REQUESTED")


def take_fingerprint(run: Run, suite: Suite) -> str:
    """The digest of everything that the verdict depends on; empty when that cannot be known."""
    if not suite.is_reusable or suite.sandbox.level != Bubblewrap.level:
        return ""
    plan = suite.plan
    facts = {
        "format": FORMAT,
        "ciapp": [__version__, _digest_of_code()],
        "run": [run.repo, run.tree, run.environment],
        "plan": plan,
        "interpreter": [_digest_of_file(plan.python), *map(_digest_of_libraries, plan.readable)],
        "packages": [_digest_of_packages(folder) for folder in _package_folders(plan.readable, _now())],
        "system": [_digest_of_file(file) for file in (*INSTALLED, *COPIED_FILES)],
        "local": _digest_of_entries((*LOCAL_FOLDERS, *shown_folders()), _now()),
        "machine": [*os.uname()[2:], os.cpu_count()],
    }
    return hashlib.sha256(msgspec.json.encode(facts, enc_hook=os.fspath)).hexdigest()


@cache
def _digest_of_code() -> str:
    """Our own code."""
    digest = hashlib.sha256()
    for file in sorted(CODE.rglob("*.py")):
        digest.update(str(file.relative_to(CODE)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _digest_of_libraries(folder: Path) -> list[str]:
    """Of the libraries that may hold most of an interpreter."""
    try:
        found = _libraries(folder / "lib", *_stamp(folder / "lib"))
    except OSError:
        return []
    return [_digest_of_file(file) for file in found]


@lru_cache(maxsize=16)
def _libraries(folder: Path, *_: int) -> list[Path]:
    return sorted(folder.glob("libpython*"))


@lru_cache(maxsize=16)
def _package_folders(readable: tuple[Path, ...], _: int) -> list[Path]:
    return [
        found for folder in readable for pattern in PACKAGE_FOLDERS for found in sorted(folder.glob(pattern))
    ]


def _digest_of_file(file: Path) -> str:
    """Of its content; empty when there is none to be read."""
    try:
        return _read_digest(file, *_stamp(file))
    except OSError:
        return ""


def _digest_of_packages(folder: Path) -> str:
    """Of what is installed in a folder, by the lists of hashes that installers leave there."""
    try:
        return _read_packages(folder, *_stamp(folder))
    except OSError:
        return ""


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a path's content does."""
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


@lru_cache(maxsize=64)
def _read_digest(file: Path, *_: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _read_packages(folder: Path, *_: int) -> str:
    digest = hashlib.sha256()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        digest.update(f"{entry.name}\n".encode("utf-8", "surrogateescape"))
        record = Path(entry.path, "RECORD")
        if entry.is_file():
            digest.update(_digest_of_file(Path(entry.path)).encode())
        elif record.is_file():
            digest.update("\n".join(_recorded(record)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _recorded(record: Path) -> Iterator[str]:
    """The lines that say something of a distribution's files."""
    for line in record.read_text("utf-8", "surrogateescape").splitlines():
        if line.partition(",")[0].rpartition("/")[2] not in TIMES:
            yield line


def _now() -> int:
    """A number that changes every `LOOK_AGAIN_S`."""
    return int(time.monotonic() / LOOK_AGAIN_S)


@lru_cache(maxsize=16)
def _digest_of_entries(folders: tuple[Path, ...], _: int) -> str:
    """Names, sizes and times of what stands in folders."""
    listed = [list(_entries(folder)) for folder in folders]
    return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()


def _entries(folder: Path) -> Iterator[tuple[str, int, int]]:
    try:
        facts = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(folder)]
    except OSError:
        return
    yield from sorted((name, one.st_size, one.st_mtime_ns) for name, one in facts)
