"""The door to the child process: what a sandbox is to those who start programs in it.

In:  a command line, an environment, and descriptors to hand over.
Out: a process whose whole tree can be signalled, measured and ended.

Which of the two levels a host has is found out by starting a program, once per process.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from ciapp.errors import SandboxError
from ciapp.settings import Limits
from ciapp.testing.bubblewrap import HOME, Bubblewrap
from ciapp.testing.etc import lay_out_etc
from ciapp.testing.folders import remove_folder
from ciapp.testing.launch import Shown
from ciapp.testing.limits import LimitsOnly
from ciapp.testing.slot import FIRST_UID, Identity, Slot

SandboxSetting = Literal["auto", "required", "off", "off-as-root"]

PROBE_TAKES_S = 20.0
PROBES = 3  #: before a host's bubblewrap counts as one that does not work
PROBE_UID = FIRST_UID - 1  #: no slot has it
CHECKOUT = Path("/checkout")  #: so that paths in output are the same in each slot


class SandboxedProcess(Protocol):
    """A program started in a sandbox, with every process that descends from it.

    What the program started ends with it. `kill` is to be called in any case, to wait for that and to
    let go of what the process holds here.
    """

    def poll(self) -> int | None:
        """Exit status of the program: None while it runs, -N when signal N ended it. Never blocks.

        A program that exits with status 128 + N is taken for one that signal N ended. Raises SandboxError
        when the program was never started, for our reasons.
        """

    def wait(self, timeout_s: float) -> int | None:
        """As `poll`, once the program has ended or the time is over."""

    def watch_stragglers(self) -> None:
        """Before the program ends: have what it leaves running counted; they have a moment to end.

        To be called when the program is known to run, as often as one likes.
        """

    @property
    def outlived(self) -> int:
        """How many processes outlived the program, once that has ended; they are ended too."""

    def signal(self, signum: int) -> None:
        """Send a signal to the program itself (not to what it started); nothing when it is gone."""

    def breach(self) -> str:
        """Which limit the process tree has broken, as a sentence; empty while it keeps them all.

        To be asked a few times a second. The memory and disk that all processes use together have no
        kernel limit of their own here, so somebody has to look.
        """

    def kill(self) -> None:
        """End the whole process tree and return when no process of it is left."""


class Sandbox(Protocol):
    """Where the code of one run may do what it likes."""

    level: str  #: "bubblewrap" or "limits", as the report names it
    checkout: Path  #: the checkout's folder as a program inside sees it; its working directory

    def inside(self, path: Path) -> Path:
        """Where a program inside finds a file or folder of the host that the sandbox was opened with."""

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        pass_fds: Sequence[int] = (),
        readable: Sequence[Path] = (),
    ) -> SandboxedProcess:
        """Start a program in the checkout, stdin at /dev/null.

        `environment` is added to the sandbox's own (HOME, TMPDIR, PATH, LANG, …); nothing else is inherited.
        `readable` are files and folders of the host that it may read, at the same paths.
        `pass_fds` keep their numbers. Raises SandboxError when it cannot be started for our reasons.

        The tree dies with the thread that calls this, so it must live as long as the program.
        """


class ShowsFiles(Protocol):
    """What a sandbox is opened on, as a checkout."""

    @property
    def shown(self) -> Sequence[Shown]:
        """What every program inside sees; programs start in the one that stands at `CHECKOUT`."""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What this host can do to hold a commit's code."""

    name: str  #: "bubblewrap" or "limits"
    reason: str = ""  #: why it is not bubblewrap; empty when it is
    as_root: bool = False  #: whether tests may be root on this host, where they can be nobody else


def find_level(setting: SandboxSetting = "auto") -> Level:
    """The level that the setting gives on this host.

    Raises SandboxError when the setting requires bubblewrap and it does not work, or there is no room to try.
    """
    if setting in ("off", "off-as-root"):
        reason = f'the setting sandbox is "{setting}"'
        return Level(name=LimitsOnly.level, reason=reason, as_root=setting == "off-as-root")
    reason = _bubblewrap_complaint()
    if not reason:
        return Level(name=Bubblewrap.level)
    if setting == "required":
        raise SandboxError(
            f'sandbox is "required" and bubblewrap fails: {reason}; mend that, or set sandbox = "auto"'
        )
    return Level(name=LimitsOnly.level, reason=reason)


def sandbox_level(setting: SandboxSetting) -> str:
    """The name of the level that the setting gives on this host; raises as `find_level`."""
    return find_level(setting).name


def check_level(setting: SandboxSetting, state_path: Path) -> Level:
    """The level that the setting gives on this host.

    Raises SandboxError as `find_level`, and when tests would be root and the setting does not say they may.
    """
    level = find_level(setting)
    _check_root(level, state_path)
    return level


def warn_of_root(setting: SandboxSetting, slot: Slot) -> str:
    """What each report is to say where tests are root on this host; empty where they are not."""
    if identity_in(find_level(setting), slot).uid != 0:
        return ""
    return f'the tests were root on this host, which they could read and change (sandbox = "{setting}")'


def describe_level(level: Level, state_path: Path) -> str:
    """What the level holds back and what not, for `ciapp doctor`."""
    if level.name == Bubblewrap.level:
        return (
            "bubblewrap: tests see no network, no other processes, and no files of the host but its programs"
        )
    held = (
        f"limits and a guard only ({level.reason}): tests can read files, and reach the network, of this host"
    )
    if os.geteuid() == 0 and not _can_drop(state_path):
        return f"{held}, as root, because {_closed(state_path)} is closed to other users"
    if os.geteuid() != 0:
        return f"{held}, as the worker's user"
    return f"{held}, as a user of the slot's own"


def identity_in(level: Level, slot: Slot) -> Identity:
    """Under whose name programs run in a slot, at a level. Raises SandboxError as `check_level`."""
    if level.name == Bubblewrap.level or _can_drop(slot.path):
        return slot.identity
    _check_root(level, slot.path)
    return Identity(os.geteuid(), os.getegid(), is_own=False, name=slot.identity.name)


def can_reach(setting: SandboxSetting, state_path: Path, program: Path) -> bool:
    """Whether a run at this host's level could start a program of the host, if it was shown it."""
    is_shown = find_level(setting).name == Bubblewrap.level
    return is_shown or not _can_drop(state_path) or _is_open(program.parent)


def open_sandbox(
    slot: Slot,
    checkout: ShowsFiles,
    limits: Limits,
    *,
    setting: SandboxSetting = "auto",
    network: bool = False,
) -> Sandbox:
    """The sandbox of one run. Raises SandboxError when the setting asks for what this host does not have.

    The weak level leaves every file where it is, and always has the network.
    """
    level = find_level(setting)
    identity = identity_in(level, slot)
    [start] = [one for one in checkout.shown if one.inside == CHECKOUT]
    if level.name == Bubblewrap.level:
        etc = _etc_of(slot.path, identity)
        return Bubblewrap(
            identity,
            etc,
            limits,
            checkout.shown,
            checkout=CHECKOUT,
            network=network,
            announce=slot.end_with_us,
        )
    return LimitsOnly(identity, slot.path / "scratch", limits, checkout.shown, checkout=start.host)


@cache
def _bubblewrap_complaint() -> str:
    """Why bubblewrap does not work on this host; empty when it does.

    The answer holds for as long as this process lives. So a host that is short of something for a moment is
    asked again, before all of a worker's tests are held less well.
    """
    complaint = ""
    for _ in range(PROBES):
        complaint = _probe_bubblewrap()
        if not complaint:
            break
    return complaint


def _probe_bubblewrap() -> str:
    """Why bubblewrap has just failed; empty when it has not.

    Raises SandboxError when there is no room to try it: that is no reason to hold tests less well.
    """
    try:
        return _start_in_bubblewrap()
    except OSError as error:
        raise SandboxError(
            f"bubblewrap cannot be tried in {tempfile.gettempdir()}: {error.strerror}; check its disk"
        ) from error


def _start_in_bubblewrap() -> str:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        own = os.geteuid() == 0
        identity = (
            Identity(PROBE_UID, PROBE_UID, True) if own else Identity(os.geteuid(), os.getegid(), False)
        )
        etc, checkout = Path(folder) / "etc", Path(folder) / "checkout"
        lay_out_etc(etc, identity, HOME)
        checkout.mkdir()
        shown = [Shown(checkout, CHECKOUT, writable=True)]
        sandbox = Bubblewrap(identity, etc, Limits(), shown, checkout=CHECKOUT)
        try:
            process = sandbox.start(["true"], environment={}, stdout=said.fileno(), stderr=said.fileno())
            status = process.wait(PROBE_TAKES_S)
            process.kill()
        except SandboxError as error:
            said.seek(0)
            return _last_line(said.read()) or str(error)
        said.seek(0)
        return "" if status == 0 else _last_line(said.read()) or f"a program in it ended with status {status}"


def _last_line(said: bytes) -> str:
    return "".join(said.decode("utf-8", "replace").strip().splitlines()[-1:])


@cache
def _etc_of(slot_path: Path, identity: Identity) -> Path:
    """The slot's /etc, laid out anew by each process, for the host's may have changed."""
    etc = slot_path / "etc"
    remove_folder(etc)
    lay_out_etc(etc, identity, HOME)
    return etc


def _interpreter() -> Path:
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _check_root(level: Level, path: Path) -> None:
    is_held = level.name == Bubblewrap.level or level.as_root
    if is_held or os.geteuid() != 0 or _can_drop(path):
        return
    raise SandboxError(
        f"tests would be root on this host, because there is no bubblewrap ({level.reason}) and"
        f" {_closed(path)} is closed to other users; install bubblewrap, run ciapp as an ordinary user, keep"
        ' Python and state_dir where others may go, or let tests be root: sandbox = "off-as-root"'
    )


def _can_drop(path: Path) -> bool:
    """Whether root can hand a program over to an identity that still reaches its files and its Python."""
    return os.geteuid() == 0 and not _closed(path)


def _closed(path: Path) -> Path | None:
    """The first folder that other users may not pass through, on their way there or to our Python."""
    ways = (path, _interpreter().parent)
    return next((folder for way in ways for folder in _parents(way) if not _is_passable(folder)), None)


def _is_open(path: Path) -> bool:
    """Whether other users may pass through a folder, and through those above it."""
    return all(map(_is_passable, _parents(path)))


def _parents(path: Path) -> tuple[Path, ...]:
    """A folder and those above it, the root first."""
    return (*reversed(path.parents), path)


def _is_passable(folder: Path) -> bool:
    return not folder.exists() or bool(folder.stat().st_mode & stat.S_IXOTH)
