"""A worker slot: a folder of this host that one pool process holds, with an identity of its own.

In:  the state folder.
Out: the first free slot, locked until it is released or its process ends, however it ends.

A slot is reused for run after run, so that a checkout costs what changed. Its identity is one that nobody
else on the host has: the tests of two slots cannot touch each other, and whatever still runs under the
identity of a slot just taken is a leftover of a dead worker.
"""

from __future__ import annotations

import fcntl
import os
import signal
import zlib
from pathlib import Path

import msgspec

from ciapp.errors import CheckoutError
from ciapp.testing.processes import kill_identity, list_named, send_signal

FIRST_UID = 1_900_000_000  #: far above the users and the containers' ranges of any host
INSTALLATIONS = 60_000
SLOTS = 1_000


class Identity(msgspec.Struct, frozen=True):
    """Under whose name programs run."""

    uid: int
    gid: int
    is_own: bool  #: whether it is the slot's own rather than the worker's
    name: str = "ciapp"  #: what the processes of ours that serve it call themselves


class Slot:
    """A place on this host where one run at a time is tested."""

    def __init__(self, number: int, path: Path, lock: int) -> None:
        self.number = number
        self.path = path
        self._lock = lock

    @property
    def identity(self) -> Identity:
        """The slot's own identity where the worker may give one, that is under root; else the worker's."""
        # Two installations on one host must not share identities: each could end the other's processes.
        installation = zlib.crc32(os.fsencode(self.path.parent))
        name = f"ciapp-{installation:08x}-slot-{self.number}"
        if os.geteuid() != 0:
            return Identity(os.geteuid(), os.getegid(), is_own=False, name=name)
        uid = FIRST_UID + installation % INSTALLATIONS * SLOTS + self.number
        return Identity(uid, uid, is_own=True, name=name)

    def release(self) -> None:
        """Let another process have the slot."""
        os.close(self._lock)


def take_slot(state_path: Path) -> Slot:
    """The first free slot of this host, made if need be.

    Raises CheckoutError when its folder cannot be used.
    """
    slots = state_path.resolve() / "slots"
    for number in range(SLOTS):
        path = slots / str(number)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CheckoutError(f"{path} cannot be used: {error.strerror}; check state_dir") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        slot = Slot(number, path, lock)
        _end_leftovers(slot.identity)
        return slot
    raise CheckoutError(f"all {SLOTS} slots in {slots} are taken; stop some workers")


def _end_leftovers(identity: Identity) -> None:
    """End what a worker that was killed has left in the slot."""
    for pid in list_named(identity.name):
        send_signal(pid, signal.SIGKILL)
    if identity.is_own:
        kill_identity(identity.uid)
