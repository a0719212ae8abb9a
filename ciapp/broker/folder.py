"""The folder of a broker: what anybody may do who holds no message.

In:  messages as bytes, queues and exchanges by name.
Out: the files that the package's docstring draws; a warning for each file that should not be there.

No step needs another: a process that is killed between two of them leaves what the next sweep clears away.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ciapp.broker.names import MESSAGE, new_message, put_at_ns, quoted, returned_message, unquoted
from ciapp.errors import BrokerError

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 1.0
STALE_PART_S = 60.0  #: a message that was not whole after this time belongs to a writer that was killed

Binding = tuple[str, str, str]  #: routing key, pattern that matches it, queue


class BrokerFolder:
    """Queues, bindings and owners, as files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queues = path / "queues"
        self.owners = path / "owners"
        self.waiting = path / "waiting"
        self.exchanges = path / "exchanges"
        self.parts = path / "tmp"
        self.aside = path / "aside"
        with self.errors_told():
            # Whoever can write here can start runs: it is for one user.
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.queues, self.owners, self.waiting, self.exchanges, self.parts, self.aside):
                folder.mkdir(exist_ok=True)

    @contextmanager
    def errors_told(self) -> Iterator[None]:
        """Turn the system's errors into a BrokerError that names the folder."""
        try:
            yield
        except OSError as error:
            raise BrokerError(
                f"broker folder {self.path} cannot be used: {error.strerror or error}; "
                "check its disk, its owner and its permissions"
            ) from error

    def declare_queue(self, queue: str) -> None:
        """Make a queue, if it is not there."""
        with self.errors_told():
            path = self._queue(queue)
            if path.exists() and not path.is_dir():
                self.put_aside(path, "it stands where a queue belongs")
            path.mkdir(exist_ok=True)

    def has_queue(self, queue: str) -> bool:
        """Whether messages can be put on it."""
        return self._queue(queue).is_dir()

    def put(self, queue: str, content: bytes, *, priority: int = 0, durable: bool = True) -> None:
        """Put a message on a queue; it is dropped when there is no such queue.

        A durable one is on the disk when this returns. Raises BrokerError, and then nothing is left of it.
        """
        name = new_message(priority)
        part = self.parts / name
        with self.errors_told():
            try:
                with part.open("xb", buffering=0) as file:
                    view = memoryview(content)
                    while view:
                        view = view[file.write(view) :]
                    if durable:
                        os.fsync(file.fileno())
                with suppress(FileNotFoundError):
                    # Its folder is not synced: a rename lost with the power is a wake-up lost, and the
                    # ledger sends those again; half a message would be worse.
                    part.rename(self._queue(queue) / name)
            finally:
                part.unlink(missing_ok=True)
            self.wake(queue)

    def wake(self, queue: str) -> None:
        """Tell the consumers of a queue that there is something on it."""
        for name in _names(self.waiting / quoted(queue)):
            wake_fifo(self.waiting / quoted(queue) / name)

    def messages(self, queue: str) -> Iterator[str]:
        """Names of the messages on a queue, first to go first. What is no message is put aside."""
        # One by one, as whoever takes a message needs but the first of perhaps 10,000.
        for name in sorted(_names(self._queue(queue))):
            if MESSAGE.fullmatch(name):
                yield name
            else:
                self.put_aside(self._queue(queue) / name, "its name is not a message's")

    def size(self, queue: str) -> int:
        """How many messages nobody has taken yet."""
        return sum(1 for _ in self.messages(queue))

    def purge(self, queue: str) -> int:
        """Drop the messages that nobody has taken; how many."""
        return self._drop(queue, self.messages(queue))

    def delete_queue(self, queue: str) -> None:
        """Drop a queue with its messages and bindings."""
        for exchange in _names(self.exchanges):
            for binding in _names(self.exchanges / exchange):
                if binding.rpartition("!")[2] == quoted(queue):
                    (self.exchanges / exchange / binding).unlink(missing_ok=True)
        for folder in (self._queue(queue), self.waiting / quoted(queue)):
            grave = self.parts / f"queue-{secrets.token_hex(6)}"
            # Renamed first: a put sees the whole queue or none.
            with suppress(FileNotFoundError):
                folder.rename(grave)
                shutil.rmtree(grave, ignore_errors=True)

    def bind(self, exchange: str, binding: Binding) -> None:
        """Send what an exchange takes for this binding to its queue."""
        with self.errors_told():
            folder = self.exchanges / quoted(exchange)
            folder.mkdir(exist_ok=True)
            (folder / "!".join(map(quoted, binding))).touch()

    def unbind(self, exchange: str, binding: Binding) -> None:
        """Undo `bind`."""
        (self.exchanges / quoted(exchange) / "!".join(map(quoted, binding))).unlink(missing_ok=True)

    def bindings(self, exchange: str) -> list[Binding]:
        """The bindings of an exchange."""
        found = []
        for name in sorted(_names(self.exchanges / quoted(exchange))):
            parts = [unquoted(part) for part in name.split("!")]
            if len(parts) == 3:
                found.append((parts[0], parts[1], parts[2]))
            else:
                self.put_aside(self.exchanges / quoted(exchange) / name, "its name is not a binding's")
        return found

    def put_aside(self, path: Path, reason: str) -> None:
        """Move what is no message out of the way, for a person to look at."""
        grave = self.aside / f"{time.time_ns()}-{path.name[:100]}"
        with suppress(FileNotFoundError), self.errors_told():
            path.rename(grave)
            logger.warning(
                "not a message, put aside", extra={"file": str(path), "now": str(grave), "reason": reason}
            )

    def give_back(self, holder: Path, tag: str) -> None:
        """Put a message that an owner holds back on its queue, in its old place."""
        message, _, queue = tag.partition("!")
        try:
            (holder / tag).rename(self.queues / queue / returned_message(message))
        except FileNotFoundError:
            (holder / tag).unlink(missing_ok=True)  # its queue was deleted meanwhile
        else:
            self.wake(unquoted(queue))

    def sweep(self) -> None:
        """Put back what dead owners held; drop their queues, and what is too old. Once a second at most."""
        with self.errors_told(), (self.path / "sweep.lock").open("a") as lock:
            age_s = time.time() - os.fstat(lock.fileno()).st_mtime
            if 0 <= age_s < SWEEP_EVERY_S * 0.9 or not _locked(lock.fileno()):
                return
            os.utime(lock.fileno())
            for name in _names(self.owners):
                self._sweep_owner(self.owners / name)
            for name in _names(self.parts):
                with suppress(FileNotFoundError):
                    if time.time() - (self.parts / name).stat().st_mtime > STALE_PART_S:
                        _remove(self.parts / name)

    def _sweep_owner(self, owner: Path) -> None:
        for name in _names(owner):
            if name.startswith("="):
                self._drop_old(owner / name)
        try:
            lock = os.open(owner / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            with suppress(OSError):
                owner.rmdir()  # the last step of `bury`, which somebody did not live to take
            if owner.exists():
                self.put_aside(owner, "an owner has a lock")
            return
        except PermissionError:
            return  # another user's, root's perhaps: nobody here can tell whether it lives
        except OSError:
            self.put_aside(owner, "an owner has a lock")
            return
        try:
            if _locked(lock):
                logger.info("owner is gone", extra={"owner": owner.name})
                self.bury(owner)
        finally:
            os.close(lock)

    def bury(self, owner: Path) -> None:
        """Return what an owner held, and remove it; for whoever holds its lock."""
        for name in _names(owner):
            if MESSAGE.fullmatch(name.partition("!")[0]) and "!" in name:
                self.give_back(owner, name)
        for name in _names(owner):
            if name.startswith("=") and not self._is_kept_elsewhere(name, owner):
                self.delete_queue(unquoted(name[1:]))
        for queue in _names(self.waiting):
            (self.waiting / queue / owner.name).unlink(missing_ok=True)
        for name in _names(owner):
            if name == "wake" or name.startswith("="):
                (owner / name).unlink(missing_ok=True)
            elif name != "lock":
                self.put_aside(owner / name, "its name is not a message's")
        (owner / "lock").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            owner.rmdir()

    def _is_kept_elsewhere(self, mark: str, owner: Path) -> bool:
        others = (self.owners / name for name in _names(self.owners) if name != owner.name)
        return any((other / mark).exists() for other in others)

    def _drop_old(self, mark: Path) -> None:
        """Drop messages past their lifetime, so that a stopped consumer of events does not fill the disk."""
        with suppress(FileNotFoundError):
            lifetime = mark.read_text()
            if not lifetime.isdigit():
                return
            queue = unquoted(mark.name[1:])
            oldest_ns = time.time_ns() - int(lifetime) * 1_000_000
            old = [name for name in self.messages(queue) if put_at_ns(name) < oldest_ns]
            if dropped := self._drop(queue, old):
                logger.warning("old messages dropped", extra={"queue": queue, "messages": dropped})

    def _drop(self, queue: str, names: Iterable[str]) -> int:
        dropped = 0
        for name in names:
            with suppress(FileNotFoundError):
                (self._queue(queue) / name).unlink()
                dropped += 1
        return dropped

    def _queue(self, queue: str) -> Path:
        return self.queues / quoted(queue)


def wake_fifo(path: Path) -> None:
    """Write the byte that means "look"; nothing when nobody reads there."""
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        with suppress(BlockingIOError):  # full: its reader has been told often enough
            os.write(pipe, b".")
    finally:
        os.close(pipe)


def _locked(file: int) -> bool:
    """Whether we have the lock of an open file now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - a queue may hold 10,000 names: no Path for each
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
