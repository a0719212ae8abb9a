"""Who takes messages from a broker's folder: one connection of one process.

In:  the queues it consumes from.
Out: messages, taken for good or until they are settled or given back; the wait for more.

The lock belongs to this process alone: a forked child drops its copy at once, or a pool child would keep the
messages of a worker that was killed. A process that ends in good order leaves no owner behind, whoever forgot
to close it: nothing may run here afterwards that would sweep it away.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import select
import socket
import stat
import threading
import weakref
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ciapp.broker.folder import BrokerFolder, wake_fifo
from ciapp.broker.names import quoted, times_returned
from ciapp.errors import BrokerError

SIZE_LIMIT = 256 * 2**20  #: bytes; whatever is larger was not put there by us


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A message that an owner took and has not settled."""

    tag: str  #: its name among what the owner holds
    content: bytes
    returned: int  #: how often it was taken and given back before


class Owner:
    """Takes messages; while it lives, nobody else gets them."""

    def __init__(self, folder: BrokerFolder) -> None:
        if _ends.is_set():
            raise BrokerError(f"broker folder {folder.path} cannot be used any more: this process is ending")
        self._folder = folder
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"
        self.path = folder.owners / quoted(name)
        with folder.errors_told(), ExitStack() as undo:
            # Made aside and locked before it is seen: a sweep would take it for a dead owner's.
            made = folder.parts / f"owner-{name}"
            made.mkdir()
            self._lock = os.open(made / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            undo.callback(os.close, self._lock)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.mkfifo(made / "wake", 0o600)
            # Open for writing too: without a writer, a FIFO is always ready and tells its end.
            self._wake = os.open(made / "wake", os.O_RDWR | os.O_NONBLOCK)
            undo.callback(os.close, self._wake)
            made.rename(self.path)
            undo.pop_all()
        self.is_open = True
        _open_owners.add(self)

    def fileno(self) -> int:
        """What becomes readable when it is time to look into the queues."""
        return self._wake

    def listen(self, queue: str) -> None:
        """Be woken when something comes onto a queue."""
        with self._folder.errors_told():
            waiting = self._folder.waiting / quoted(queue)
            waiting.mkdir(exist_ok=True)
            with suppress(FileExistsError):
                os.link(self.path / "wake", waiting / self.path.name)

    def keep(self, queue: str, lifetime_ms: int | None) -> None:
        """Let a queue end with its last owner, and the messages that nobody takes after a time."""
        with self._folder.errors_told():
            (self.path / f"={quoted(queue)}").write_text(str(lifetime_ms or ""))

    def take(self, queue: str) -> Message | None:
        """The first message of a queue; None when it is empty. What cannot be read is put aside."""
        seen = False
        for name in self._folder.messages(queue):
            seen = True
            tag = f"{name}!{quoted(queue)}"
            try:
                with self._folder.errors_told():
                    (self._folder.queues / quoted(queue) / name).rename(self.path / tag)
            except BrokerError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    continue  # another owner was quicker
                raise
            content = self._read(tag)
            if content is not None:
                return Message(tag=tag, content=content, returned=times_returned(name))
        if seen:
            self.check()
        return None

    def settle(self, tag: str) -> None:
        """Be done with a message; nothing when somebody else has it by now."""
        if self.is_open:
            with self._folder.errors_told():
                (self.path / tag).unlink(missing_ok=True)

    def give_back(self, tag: str) -> None:
        """Put a message back on its queue."""
        if self.is_open:
            with self._folder.errors_told():
                self._folder.give_back(self.path, tag)

    def reject(self, tag: str, reason: str) -> None:
        """Put a message aside that is none."""
        self._folder.put_aside(self.path / tag, reason)

    def wake(self) -> None:
        """Make ourselves look into the queues again."""
        if self.is_open:
            wake_fifo(self.path / "wake")

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to take."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.poll(timeout_s * 1000)

    def hear(self) -> None:
        """Forget the wake-ups so far; to be called before the queues are looked at, or one may be lost."""
        with suppress(BlockingIOError):
            os.read(self._wake, 65536)

    def check(self) -> None:
        """Raise BrokerError when what we hold was taken from us."""
        if not (self.path / "lock").exists():
            raise BrokerError(f"broker folder {self._folder.path} was removed under us; connect again")

    def close(self) -> None:
        """Give everything back, and be no owner any more."""
        if self.is_open:
            try:
                self._folder.bury(self.path)
            finally:
                self.forget()

    def forget(self) -> None:
        """Close our descriptors, and nothing else."""
        self.is_open = False
        _open_owners.discard(self)
        os.close(self._lock)
        os.close(self._wake)

    def _read(self, tag: str) -> bytes | None:
        """A message's content; None when it is no file of ours, and was put aside."""
        try:
            file = os.open(self.path / tag, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            self.reject(tag, error.strerror or str(error))
            return None
        try:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= SIZE_LIMIT:
                return os.read(file, status.st_size)
        finally:
            os.close(file)
        self.reject(tag, "it is empty, too large or no file")
        return None


_open_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child: the parent's owners stay the parent's."""
    for owner in list(_open_owners):
        owner.forget()


def _close_all() -> None:
    """At the end of this process: Flower closes none of its connections, and its threads make new ones."""
    _ends.set()
    for owner in list(_open_owners):
        with suppress(BrokerError, OSError):
            owner.close()


_ends = threading.Event()
os.register_at_fork(after_in_child=_leave_to_parent)
atexit.register(_close_all)
