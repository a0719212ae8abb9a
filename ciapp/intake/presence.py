"""The dispatcher's presence in a repository: a mark that it lives, and a FIFO that wakes it.

In:  the repositories that a dispatcher serves.
Out: <git dir>/ciapp/dispatcher and <git dir>/ciapp/wake, both read by hooks/post-receive.

A process id proves nothing: after a crash it may be another's, and git may be a user that must not signal
ours. So the mark holds the process id, the time that process started (field 22 of /proc/<pid>/stat), and the
boot in which that time counts. A hook that finds the mark false starts a dispatcher of its own.

A dispatcher that ends must look at the spool once more *after* `close`: a push that still saw the mark has
left its record by then.
"""

from __future__ import annotations

import logging
import os
import selectors
import stat
from pathlib import Path

logger = logging.getLogger(__name__)

MARK = "dispatcher"
FIFO = "wake"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STARTED_FIELD = 19  #: of /proc/<pid>/stat, counted from 0 behind the program's name


class Presence:
    """A dispatcher's marks in the repositories it serves, and its ear at their FIFOs."""

    def __init__(self) -> None:
        self._mark = _mark_of(os.getpid())
        self._fifos: dict[Path, int] = {}
        self._unreachable: set[Path] = set()
        self._selector = selectors.DefaultSelector()
        self._interruption = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._interruption, selectors.EVENT_READ, None)

    def announce(self, git_dir: Path) -> bool:
        """Leave the mark and listen; whether that worked. To be called again now and then: it mends both.

        A repository without a hook, or one that cannot be written, is said once and served without.
        """
        try:
            self._leave_mark(git_dir)
            self._listen(git_dir)
        except OSError as error:
            self._forget(git_dir)
            if git_dir not in self._unreachable:
                fields = {"path": str(git_dir), "error": error.strerror}
                logger.warning("hook cannot wake the dispatcher; records are found by looking", extra=fields)
            self._unreachable.add(git_dir)
            return False
        self._unreachable.discard(git_dir)
        return True

    def wait(self, timeout_s: float) -> frozenset[Path]:
        """Pause until a hook wakes us, `interrupt` is called, or the time is over; who woke us."""
        woken = set()
        for key, _ in self._selector.select(timeout_s):
            # Pushes that came together wake once.
            os.read(key.fd, 65536)
            if key.data is not None:
                woken.add(key.data)
        return frozenset(woken)

    def interrupt(self) -> None:
        """End a `wait` that is going on, or else the next; safe in a signal handler."""
        os.eventfd_write(self._interruption, 1)

    def close(self) -> None:
        """Take our marks away; read the spool once more afterwards. Closing twice does no harm."""
        for git_dir in list(self._fifos):
            try:
                if _read_mark(git_dir) == self._mark:
                    (git_dir / "ciapp" / MARK).unlink(missing_ok=True)
                    (git_dir / "ciapp" / FIFO).unlink(missing_ok=True)
            except OSError as error:
                # A mark that stays is no longer believed once this process has ended.
                fields = {"path": str(git_dir), "error": error.strerror}
                logger.warning("mark of the dispatcher cannot be removed", extra=fields)
            self._forget(git_dir)
        if self._interruption >= 0:
            self._selector.close()
            os.close(self._interruption)
            self._interruption = -1

    def _leave_mark(self, git_dir: Path) -> None:
        if _read_mark(git_dir) == self._mark or is_dispatcher_alive(git_dir):
            return
        part = git_dir / "ciapp" / f".{MARK}.{os.getpid()}"
        part.write_text(self._mark)
        part.chmod(0o644)
        part.rename(git_dir / "ciapp" / MARK)

    def _listen(self, git_dir: Path) -> None:
        fifo = git_dir / "ciapp" / FIFO
        listening = self._fifos.get(git_dir)
        if listening is not None:
            if _is_same_file(listening, fifo):
                return
            self._forget(git_dir)
        _make_fifo(fifo)
        # Open for both: with a writer of our own there is no end of file when a hook lets go.
        descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._fifos[git_dir] = descriptor
        self._selector.register(descriptor, selectors.EVENT_READ, git_dir)

    def _forget(self, git_dir: Path) -> None:
        descriptor = self._fifos.pop(git_dir, None)
        if descriptor is not None:
            self._selector.unregister(descriptor)
            os.close(descriptor)


def is_dispatcher_alive(git_dir: Path) -> bool:
    """Whether a dispatcher of this host serves this repository, as far as its mark and /proc tell."""
    mark = _read_mark(git_dir)
    pid = mark.partition(" ")[0]
    if not pid.isdecimal():
        return False
    try:
        return _mark_of(int(pid)) == mark
    except OSError:
        return False


def _mark_of(pid: int) -> str:
    """What a living process is marked by. Raises OSError for one that has ended, reaped or not."""
    facts = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].decode("ascii").split()
    if facts[0] in {"Z", "X"}:
        raise ProcessLookupError(f"process {pid} has ended")
    return f"{pid} {facts[STARTED_FIELD]} {BOOT_ID.read_text().strip()}\n"


def _read_mark(git_dir: Path) -> str:
    """The mark in a repository, whosever it is; empty without one."""
    try:
        descriptor = os.open(git_dir / "ciapp" / MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(200).decode("ascii", "replace")
    except OSError:
        return ""


def _make_fifo(fifo: Path) -> None:
    """Make a FIFO that whoever may write into the spool may write to."""
    try:
        if stat.S_ISFIFO(fifo.lstat().st_mode):
            return
        fifo.unlink()
    except FileNotFoundError:
        pass
    spool = (fifo.parent / "spool").stat()
    os.mkfifo(fifo)
    fifo.chmod(spool.st_mode & 0o222 | (spool.st_mode & 0o222) << 1)
    facts = fifo.stat()
    if (facts.st_uid, facts.st_gid) != (spool.st_uid, spool.st_gid) and os.geteuid() == 0:
        os.chown(fifo, spool.st_uid, spool.st_gid)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), facts)
