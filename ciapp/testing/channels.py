"""The pipes between a child and its parent, drained whatever is in them.

In:  the descriptors of one child.
Out: event lines into the journal, output into its scopes, stack dumps into the text of what runs.

The hard idea: a child that says little must cost little, and one that floods must not be waited for. So a
read that brings little is followed by a short rest, in which the next few events gather; one that brings much
is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import time

from ciapp.testing.journal import Journal
from ciapp.testing.output import HeadTail, Outputs, Splitter

READ_SIZE = 256 * 1024
PIPE_SIZE = 256 * 1024  #: where the system grants it
TURN_READS = 16  #: of one pipe, before the others and the clock get their turn
REST_S = 0.003
LITTLE = 16 * 1024  #: bytes after which resting does no harm
DUMP_SIZE = 64 * 1024  #: kept of a stack dump


class Channels:
    """Both ends of the four pipes; the child's ends until it has started."""

    def __init__(self, journal: Journal, outputs: Outputs, *, nonce: str) -> None:
        self._journal = journal
        self._pipes = [os.pipe() for _ in range(4)]
        self.events, self.faults, self.stdout, self.stderr = (write for _, write in self._pipes)
        self._events, self._faults, *self._streams = (read for read, _ in self._pipes)
        self._splitters = {
            descriptor: Splitter(outputs, child=journal.children, stream=stream, nonce=nonce)
            for stream, descriptor in enumerate(self._streams, 1)
        }
        self._dump = HeadTail(DUMP_SIZE // 2)
        self._dumped: object = None  #: what ran when the dump was written
        self._selector = selectors.DefaultSelector()
        for read, _ in self._pipes:
            os.set_blocking(read, False)
            # Larger pipes save turns between the processes; the default serves as well.
            with contextlib.suppress(OSError):
                fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            self._selector.register(read, selectors.EVENT_READ)

    def close_child_ends(self) -> None:
        """To be called once the child has its own."""
        for _, write in self._pipes:
            os.close(write)

    def close(self) -> None:
        """Let go of the pipes; what was read last counts as the end of the output."""
        for splitter in self._splitters.values():
            splitter.finish()
        self._selector.close()
        for read, _ in self._pipes:
            os.close(read)

    @property
    def can_speak(self) -> bool:
        """Whether anybody still holds the child's end of the event channel."""
        return self._is_open(self._events)

    def dump(self) -> str:
        """Stacks that were written while what runs now was running."""
        return self._dump.text() if self._dump.seen and self._dumped == self._journal.current else ""

    def drain(self, timeout_s: float, *, rest: bool = False) -> bool:
        """Wait for something to read, and read it; False when there was nothing.

        With `rest`, a read that brought little ends with a pause, unless it brought the child's last word.
        """
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return False
        ready = {key.fd for key, _ in self._selector.select(timeout_s)}
        taken = 0
        # Events first: a dump then meets the test it belongs to.
        for descriptor in (self._events, self._faults, *self._streams):
            if descriptor in ready:
                taken += self._read(descriptor)
        if rest and ready and taken < LITTLE and not self._journal.child.has_ended:
            time.sleep(REST_S)
        return bool(ready)

    def drain_rest(self) -> None:
        """Read what is there, and no more than the pipes hold: somebody may still be writing."""
        for _ in range(PIPE_SIZE // READ_SIZE + 1):
            if not self.drain(0):
                return

    def _read(self, descriptor: int) -> int:
        taken = 0
        for _ in range(TURN_READS):
            try:
                data = os.read(descriptor, READ_SIZE)
            except BlockingIOError:
                break
            if not data:
                self._selector.unregister(descriptor)
                break
            self._deliver(descriptor, data)
            taken += len(data)
            if len(data) < LITTLE:
                break
        return taken

    def _deliver(self, descriptor: int, data: bytes) -> None:
        if descriptor == self._events:
            self._journal.hear(data)
        elif descriptor == self._faults:
            if self._dumped != self._journal.current:
                self._dumped = self._journal.current
                self._dump = HeadTail(DUMP_SIZE // 2)
            self._dump.add(data)
        else:
            self._splitters[descriptor].feed(data)

    def _is_open(self, descriptor: int) -> bool:
        return descriptor in self._selector.get_map()
