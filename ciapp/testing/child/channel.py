"""The child's side of the wire: event lines, and the markers that cut the output into scopes.

In:  what happened, as bits of JSON.
Out: one write per event, on descriptors that tests are unlikely to meet.

Everything used here is bound when the module is imported, before test code may replace it.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from os import _exit, close, dup, dup2, fstat, getpid, write
from time import sleep

try:
    from _json import encode_basestring_ascii
except ImportError:  # not part of every build
    from json.encoder import py_encode_basestring_ascii as encode_basestring_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any

__unittest = True  # unittest leaves frames of such modules out of tracebacks

CHANNEL_LOST = 121  #: exit status of a child that can no longer be heard
HIGH = (960, 200)  #: where descriptors move to: under the usual limit of 1,024, else under a limit of 256
MARK = "\x1e"


def clean(text: str) -> str:
    """What any database takes for text: NUL and lone surrogates become the text of their escapes."""
    if text.isascii() and "\0" not in text:
        return text
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\0", "\\x00")


def quote(text: str) -> str:
    """A JSON string, ASCII only."""
    quoted: str = encode_basestring_ascii(clean(text))
    return quoted


def move_up(descriptor: int, place: int) -> int:
    """The same pipe at a high number, closed to programs that tests start."""
    for base in HIGH:
        try:
            return dup2(descriptor, base + place, inheritable=False)
        except OSError:
            continue
    return dup(descriptor)


class Channel:
    """The event pipe and the child's own ends of stdout and stderr."""

    def __init__(self, nonce: str, events: int) -> None:
        self._nonce = nonce
        self._pid = getpid()
        self._events = move_up(events, 0)
        close(events)
        self._pipes = (move_up(1, 1), move_up(2, 2))
        self._streams = (sys.stdout, sys.stderr)
        self._lock = allocate_lock()
        self._lines = 0

    def is_copy(self) -> bool:
        """Whether this process is a fork of the child, not the child."""
        return getpid() != self._pid

    def is_own_stderr(self, stream: Any) -> bool:
        """Whether the child began with this stream, and its descriptor is the parent's pipe still."""
        try:
            here, there = fstat(stream.fileno()), fstat(self._pipes[1])
        except Exception:  # closed, or no file at all
            return False
        return stream is self._streams[1] and here.st_ino == there.st_ino and here.st_dev == there.st_dev

    def emit(self, kind: str, fields: str = "") -> None:
        """Send one event; `fields` is JSON that follows "type" and "n". A forked copy stays silent."""
        if getpid() != self._pid:
            return
        with self._lock:
            line = f'{self._nonce} {{"type":"{kind}","n":{self._lines}{fields}}}\n'
            self._lines += 1
            try:
                _write_all(self._events, line.encode("ascii"))
            except OSError:
                # Nobody would learn what the tests do from here on.
                _exit(CHANNEL_LOST)

    def emit_stray(self) -> None:
        """From a forked copy: the one line that says it came back into the suite. It takes no number."""
        try:
            _write_all(
                self._events, f'{self._nonce} {{"type":"stray","n":0,"pid":{getpid()}}}\n'.encode("ascii")
            )
        except OSError:
            pass

    def mark(self, scope: str) -> None:
        """Say on stdout and stderr whose output follows."""
        if getpid() != self._pid:
            return
        marker = f"{MARK}{self._nonce} {scope}{MARK}".encode("ascii")
        for stream, pipe in zip(self._streams, self._pipes):  # noqa: B905  # strict= is of 3.10
            try:
                stream.flush()
            except Exception:  # closed, detached or replaced by the tests
                pass
            try:
                _write_all(pipe, marker)
            except OSError:
                pass


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[write(descriptor, data) :]
        except BlockingIOError:
            # A test has made the pipe non-blocking, for all who hold it.
            sleep(0.001)
