"""A worker slot: a folder of this host that one pool process holds, with an identity of its own.

In:  the state folder.
Out: the first free slot, locked until it is released or its process ends, however it ends.

A slot is reused for run after run, so that a checkout costs what changed. Its identity is one that nobody
else on the host has: the tests of two slots cannot touch each other, and whatever still runs under the
identity of a slot just taken is a leftover of a dead worker. Leftovers that carry the holder's name need not
wait for the next holder: a shell waits for this one's end, and has them swept. What cannot be called by it
carries it in its environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from ciapp.errors import CheckoutError
from ciapp.testing import sweeper
from ciapp.testing.processes import kill_identity, list_serving, send_signal, started_at

FIRST_UID = 1_900_000_000  #: far above the users and the containers' ranges of any host
INSTALLATIONS = 60_000
SLOTS = 1_000

#: Lines name the process that is to end with the holder; the pipe's end is the death of the holder.
WAIT_AND_SWEEP = """
while read -r line; do
    [ "$line" = released ] && exit
    told=$line
done
exec "$@" $told
"""


class Identity(msgspec.Struct, frozen=True):
    """Under whose name programs run."""

    uid: int
    gid: int
    is_own: bool  #: whether it is the slot's own rather than the worker's
    name: str = "ciapp"  #: what the processes of ours that serve its present holder call themselves

    @property
    def mark(self) -> dict[str, str]:
        """A variable that ends with the holder whatever is started with it, and what that starts in turn."""
        return {sweeper.MARK: self.name}


class Slot:
    """A place on this host where one run at a time is tested."""

    def __init__(self, number: int, path: Path, lock: int) -> None:
        self.number = number
        self.path = path
        self._lock = lock
        self._name = f"{self.serves}{secrets.token_hex(4)}"
        self._lifeline, self._sweeper = _start_sweeper(self._name)
        self._belongings = contextlib.ExitStack()

    @property
    def serves(self) -> str:
        """What the name of every process begins with that serves this slot, whoever holds it."""
        return f"ciapp-{self._installation:08x}-slot-{self.number}-"

    @property
    def identity(self) -> Identity:
        """The slot's own identity where the worker may give one, that is under root; else the worker's."""
        if os.geteuid() != 0:
            return Identity(os.geteuid(), os.getegid(), is_own=False, name=self._name)
        uid = FIRST_UID + self._installation % INSTALLATIONS * SLOTS + self.number
        return Identity(uid, uid, is_own=True, name=self._name)

    @property
    def _installation(self) -> int:
        # Two installations on one host must not share identities: each could end the other's processes.
        return zlib.crc32(os.fsencode(self.path.parent))

    def end_with_us(self, pid: int) -> None:
        """Have a process killed when this one dies, whatever it calls itself; the last that was named."""
        self._tell_sweeper(f"{pid} {started_at(pid)}")

    def at_release(self, end: Callable[[], None]) -> None:
        """Have something ended that serves the slot for as long as it is held."""
        self._belongings.callback(end)

    def release(self) -> None:
        """Let another process have the slot."""
        self._belongings.close()
        self._tell_sweeper("released")
        os.close(self._lifeline)
        self._sweeper.wait()
        os.close(self._lock)

    def _tell_sweeper(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it
            os.write(self._lifeline, f"{line}\n".encode("ascii"))


def slots_folder(state_path: Path) -> Path:
    """Where this host's slots are."""
    return state_path.resolve() / "slots"


def take_slot(state_path: Path) -> Slot:
    """The first free slot of this host, made if need be.

    Raises CheckoutError when its folder cannot be used.
    """
    slots = slots_folder(state_path)
    for number in range(SLOTS):
        path = slots / str(number)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if os.geteuid() != 0:
                # Tests make files of the worker's own user here, such as run in its name whoever starts them.
                with contextlib.suppress(PermissionError):  # another user's folder
                    slots.chmod(0o700)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CheckoutError(f"{path} cannot be used: {error.strerror}; check state_dir") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        slot = Slot(number, path, lock)
        _end_leftovers(slot)
        return slot
    raise CheckoutError(f"all {SLOTS} slots in {slots} are taken; stop some workers")


def _start_sweeper(name: str) -> tuple[int, subprocess.Popen[bytes]]:
    """What ends the processes of that name when this process dies; and the pipe by which it learns of that.

    The shell stands for the sweeper while there is nothing to do: it takes a tenth of the memory.
    """
    waiting, lifeline = os.pipe()
    try:
        process = subprocess.Popen(
            ["sh", "-c", WAIT_AND_SWEEP, "sh", sys.executable, "-I", "-S", sweeper.__file__, name],
            executable="/bin/sh",
            stdin=waiting,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    except OSError as error:
        os.close(lifeline)
        raise CheckoutError(f"/bin/sh cannot be started: {error.strerror}; see `ciapp doctor`") from error
    finally:
        os.close(waiting)
    return lifeline, process


def _end_leftovers(slot: Slot) -> None:
    """End what a worker that was killed has left in the slot."""
    for pid in list_serving(slot.serves):
        with contextlib.suppress(PermissionError):  # another user's, who may choose any name
            send_signal(pid, signal.SIGKILL)
    if slot.identity.is_own:
        kill_identity(slot.identity.uid)
