"""Slots, checkouts and sandboxes for tests, and programs run in them to their end."""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import stat
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ciapp.settings import Limits
from ciapp.testing.checkout import Checkout, check_out
from ciapp.testing.environment import default_python
from ciapp.testing.mirror import Mirror
from ciapp.testing.sandbox import Sandbox, SandboxedProcess, SandboxSetting, find_level, open_sandbox
from ciapp.testing.slot import Slot, take_slot
from tests.support.git_repositories import WorkTree, new_folder
from tests.support.levels import usual_level
from tests.support.services import REQUIRED

PYTHON = default_python()
ENDS_WITHIN_S = 60.0
SHARED_BY_ALL = "/tmp"  #: anybody may lock it
#: The weak level for whoever runs our tests, root with a Python in its home included.
WEAK: SandboxSetting = "off-as-root"
HAS_BUBBLEWRAP = find_level("auto").name == "bubblewrap"
needs_bubblewrap = unittest.skipUnless(HAS_BUBBLEWRAP or REQUIRED, "bubblewrap does not work on this host")


@contextmanager
def alone_with_memory() -> Iterator[None]:
    """A block, or a test, while no other one of these runs on this host, whoever runs it.

    What a run may hide is taken to be what the host has come to use since: whoever takes hundreds of MiB
    meanwhile, or gives them back, disturbs a run that is near its limit.
    """
    folder = os.open(SHARED_BY_ALL, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


class Ended(NamedTuple):
    """What became of a program."""

    status: int | None  #: None: it had to be killed
    output: str  #: both streams
    breach: str = ""  #: the limit for which it was killed


class Place:
    """A slot in a state folder of its own, and a repository whose commits are laid out in it."""

    def __init__(
        self, test: unittest.TestCase | type[unittest.TestCase], setting: SandboxSetting = "auto"
    ) -> None:
        """For one test, or for a class of them."""
        owner = test if isinstance(test, unittest.TestCase) else _OfClass(test)
        self.state = new_folder(owner) / "state"
        self.setting = usual_level() if setting == "auto" else setting
        self.slot: Slot = take_slot(self.state)
        owner.addCleanup(lambda: self.slot.release())
        self.origin = WorkTree(owner, self.state)
        self.mirror = Mirror(self.state, "team")

    @property
    def path(self) -> Path:
        """Where the slot's checkout stands on the host."""
        return self.slot.path / "checkouts" / "team"

    def commit(self, files: Mapping[str, str] | None = None) -> Checkout:
        """A new commit of the repository, laid out in the slot."""
        return self.check_out(self.origin.commit("Change", files))

    def check_out(self, commit: str, *, limits: Limits | None = None) -> Checkout:
        """A commit of the repository, laid out in the slot."""
        self.mirror.ensure_commit(str(self.origin.path / ".git"), commit)
        return check_out(self.slot, self.mirror, commit, setting=self.setting, limits=limits)

    def open(self, checkout: Checkout, *, limits: Limits | None = None, network: bool = False) -> Sandbox:
        """A sandbox on a checkout."""
        return open_sandbox(self.slot, checkout, limits or Limits(), network=network, setting=self.setting)


class _OfClass(unittest.TestCase):
    """Stands for a class where a test is asked for: what it is to clean up is cleaned up after the class."""

    def __init__(self, of: type[unittest.TestCase]) -> None:
        super().__init__()
        self.addCleanup = of.addClassCleanup  # type: ignore[method-assign]


def start_python(
    sandbox: Sandbox,
    script: str,
    *arguments: str,
    stdout: int,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> SandboxedProcess:
    """Start a script, given as text."""
    return sandbox.start(
        [str(PYTHON.python), "-I", "-c", script, *arguments],
        environment=environment or {},
        stdout=stdout,
        stderr=stdout,
        pass_fds=pass_fds,
        readable=PYTHON.readable,
    )


def run_python(sandbox: Sandbox, script: str, *arguments: str, within_s: float = ENDS_WITHIN_S) -> Ended:
    """Run a script to its end, or until it breaks a limit."""
    command = [str(PYTHON.python), "-I", "-c", script, *arguments]
    return run_command(sandbox, command, PYTHON.readable, within_s)


def run_command(
    sandbox: Sandbox, command: Sequence[str], readable: Sequence[Path] = (), within_s: float = ENDS_WITHIN_S
) -> Ended:
    """Run a program to its end, or until it breaks a limit."""
    with tempfile.TemporaryFile() as output:
        process = sandbox.start(
            command, environment={}, stdout=output.fileno(), stderr=output.fileno(), readable=readable
        )
        ended = wait_for_end(process, within_s)
        output.seek(0)
        return ended._replace(output=output.read().decode("utf-8", "backslashreplace"))


def wait_for_end(process: SandboxedProcess, within_s: float = ENDS_WITHIN_S) -> Ended:
    """Watch a program as a supervisor does; whatever it left is ended too."""
    deadline = time.monotonic() + within_s
    breach = ""
    try:
        while process.wait(0.1) is None and not breach and time.monotonic() < deadline:
            breach = process.breach()
        return Ended(None if breach else process.poll(), "", breach)
    finally:
        process.kill()


def wait_until(fact: Callable[[], bool], within_s: float = ENDS_WITHIN_S) -> bool:
    """Whether something came true in time."""
    deadline = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def open_descriptors() -> list[str]:
    """The descriptors of this process, and what each is open on."""
    return sorted(
        f"{link.name} {link.readlink()}" for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
    )


def open_interpreter() -> Path | None:
    """A Python like this one that every user of this host may run; None when there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin") / version):
        if candidate.exists() and all(parent.stat().st_mode & 0o001 for parent in candidate.parents):
            return candidate
    return None


def flags_of(file: bytes) -> list[int]:
    """What `lsattr` shows of a file, without what the kernel sets itself; empty where there are no flags."""
    flags = array.array("i", [0, 0])
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            fcntl.ioctl(opened, 0x80086601, flags)  # FS_IOC_GETFLAGS
    except OSError:
        return []
    return [flags[0] & ~0x81000]  # extents, index


def tree_of(path: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a folder that a test could tell apart: kinds, modes, owners, contents, attributes.

    Left out are times, and git's index, which holds times.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    root = os.fsencode(path)
    for folder, folders, files in os.walk(root):
        for name in (b".", *folders, *files):
            file = os.path.join(folder, name)  # noqa: PTH118 - names are bytes
            facts = os.lstat(file)
            content: object = None
            if stat.S_ISLNK(facts.st_mode):
                content = os.readlink(file)  # noqa: PTH115
            elif stat.S_ISREG(facts.st_mode) and not file.endswith(b"/.git/index"):
                with open(file, "rb") as opened:  # noqa: PTH123
                    content = hashlib.sha256(opened.read()).hexdigest()
            attributes = [] if stat.S_ISLNK(facts.st_mode) else sorted(os.listxattr(file))
            if stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
                attributes += map(str, flags_of(file))
            found[os.path.relpath(file, root)] = (
                facts.st_mode,
                facts.st_uid,
                facts.st_nlink,
                content,
                attributes,
            )
    return found
