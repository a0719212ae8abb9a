"""What tests wrote, cut up by test and kept in part.

In:  the bytes of the child's stdout and stderr, with the markers that the child writes between them.
Out: head and tail of each test's output, and of what was written outside any test.

The hard idea: markers and output travel in one stream, so who wrote what needs no clock. A flood costs no
memory: each scope keeps a bounded head and tail, and all scopes together keep the run's first output and its
latest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ciapp.testing.child.channel import MARK

Scope = tuple[int, str]  #: number of the child, and the scope as its markers name it

OUTSIDE: Scope = (-1, "-")
OUTSIDE_SHARE = 4  #: output outside any test may be so many times as long as a test's
LONGEST_SCOPE = 16  #: bytes of a scope's name in a marker
MOST_SCOPES = 250_000  #: that have output; what comes beyond them belongs to no test


@dataclass(slots=True)
class HeadTail:
    """The first and the last bytes of a stream; the rest is counted."""

    half: int  #: bytes of the head, and of the tail
    seen: int = 0
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.seen += len(data)
        if not self.half:
            return
        room = self.half - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        self.tail += data[-self.half :]
        if len(self.tail) > 2 * self.half:
            del self.tail[: -self.half]

    @property
    def kept(self) -> int:
        """Bytes that are still here."""
        return len(self.head) + min(len(self.tail), self.half)

    def drop(self) -> None:
        """Forget all bytes, and that there may be more."""
        self.half = 0
        self.head.clear()
        self.tail.clear()

    def text(self) -> str:
        """What is kept, readable and fit for any database."""
        tail = self.tail[-self.half :] if self.half else bytearray()
        if self.seen == len(self.head) + len(tail):
            return readable(self.head + tail)
        head, tail = _whole_at_end(self.head), _whole_at_start(tail)
        note = f"[{self.seen - len(head) - len(tail)} bytes left out]"
        return f"{readable(head)}\n{note}\n{readable(tail)}" if self.half else note


class Outputs:
    """The output of all scopes of a run."""

    def __init__(self, *, test_limit: int, run_limit: int) -> None:
        self._half = max(1, min(test_limit, run_limit // 4) // 2)
        self._outside = HeadTail(self._half * OUTSIDE_SHARE)
        self._scopes: dict[tuple[Scope, int], HeadTail] = {}
        self._budget = run_limit // 2  #: bytes for the first scopes, and again for the latest
        self._first = 0
        self._latest: deque[HeadTail] = deque()
        self._latest_kept = 0

    def add(self, scope: Scope, stream: int, data: bytes) -> None:
        """Take output of a scope; `stream` is 1 or 2."""
        if scope == OUTSIDE:
            self._outside.add(data)
            return
        kept = self._scopes.get((scope, stream))
        if kept is None and len(self._scopes) < MOST_SCOPES:
            kept = self._scopes[scope, stream] = HeadTail(self._half)
        (self._outside if kept is None else kept).add(data)

    def close(self, scope: Scope, stream: int, *, belongs_outside: bool) -> None:
        """A scope has ended on this stream: count what it keeps against the run's limit."""
        kept = self._scopes.get((scope, stream))
        if kept is None:
            return
        if belongs_outside:
            del self._scopes[scope, stream]
            self._outside.add(bytes(kept.head))
            self._outside.add(bytes(kept.tail))
            self._outside.seen += kept.seen - len(kept.head) - len(kept.tail)
        elif not self._latest and self._first + kept.kept <= self._budget:
            self._first += kept.kept
        else:
            self._latest.append(kept)
            self._latest_kept += kept.kept
            while self._latest_kept > self._budget:
                oldest = self._latest.popleft()
                self._latest_kept -= oldest.kept
                oldest.drop()

    def text(self, scope: Scope, stream: int) -> str:
        """What is kept of a scope's output."""
        kept = self._scopes.get((scope, stream))
        return kept.text() if kept else ""

    def outside(self) -> str:
        """What is kept of the output outside any test, both streams together."""
        return self._outside.text()

    def left_out(self) -> int:
        """Bytes that were not kept, of all scopes."""
        return sum(kept.seen - kept.kept for kept in (*self._scopes.values(), self._outside))


class Splitter:
    """Cuts one stream of one child into scopes."""

    def __init__(self, outputs: Outputs, *, child: int, stream: int, nonce: str) -> None:
        self._outputs = outputs
        self._child = child
        self._stream = stream
        self._mark = f"{MARK}{nonce} ".encode("ascii")
        self._scope = OUTSIDE
        self._held = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; a marker may be cut anywhere between two calls."""
        data = self._held + data
        position = 0
        while (at := data.find(self._mark, position)) >= 0:
            name_at = at + len(self._mark)
            name_ends = data.find(MARK.encode("ascii"), name_at, name_at + LONGEST_SCOPE + 1)
            if name_ends < 0:
                if len(data) - name_at > LONGEST_SCOPE:
                    self._pass_on(data[position:name_at])  # no marker of ours
                    position = name_at
                    continue
                self._pass_on(data[position:at])
                self._held = data[at:]
                return
            self._pass_on(data[position:at])
            self._turn(data[name_at:name_ends].decode("ascii", "replace"))
            position = name_ends + 1
        hold = _start_of_mark(data, self._mark, position)
        self._pass_on(data[position:hold])
        self._held = data[hold:]

    def finish(self) -> None:
        """The stream has ended."""
        self._pass_on(self._held)
        self._held = b""
        self._close(belongs_outside=False)

    def _turn(self, name: str) -> None:
        fixture = self._scope[1].startswith("f")
        self._close(belongs_outside=fixture and name != "!")
        self._scope = OUTSIDE if name in ("-", "!") else (self._child, name)

    def _close(self, *, belongs_outside: bool) -> None:
        self._outputs.close(self._scope, self._stream, belongs_outside=belongs_outside)

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._outputs.add(self._scope, self._stream, data)


def readable(data: bytes | bytearray) -> str:
    """Text of any bytes. NUL is written out: some databases refuse it in text."""
    return bytes(data).decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _start_of_mark(data: bytes, mark: bytes, position: int) -> int:
    """Where the data's end may be the beginning of a marker; its length when it is not."""
    at = data.rfind(mark[:1], max(position, len(data) - len(mark) + 1))
    return at if at >= 0 and mark.startswith(data[at:]) else len(data)


def _whole_at_end(data: bytearray) -> bytearray:
    """Without the beginning of a UTF-8 sequence that was cut off."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            wanted = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if wanted > back else data
    return data


def _whole_at_start(data: bytearray) -> bytearray:
    """Without the end of a UTF-8 sequence that was cut off."""
    start = 0
    while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]
