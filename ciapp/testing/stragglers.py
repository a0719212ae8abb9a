"""Processes that a program started and that are still there when it has ended.

In:  the numbers of bubblewrap, of its reaper, and of the program.
Out: whether any of them outlived the program by more than a moment.

bubblewrap ends with the program, and the whole namespace with bubblewrap: nobody would see what was left. So
bubblewrap is stopped while the program runs. Helpers that end once their other end is closed, as those of
multiprocessing do, have a moment for that; then bubblewrap may go on, and ends. A stopped process dies with
its parent as any other.
"""

from __future__ import annotations

import os
import select
import signal
import time

from ciapp.testing.processes import list_tree, send_signal

GRACE_S = 1.0
POLL_S = 0.005


class Stragglers:
    """What a program leaves running."""

    def __init__(self, bubblewrap: int, reaper: int, program: int) -> None:
        """`bubblewrap` is a child of ours. Raises ProcessLookupError when the program has ended."""
        self.left = 0  #: processes that had to be ended
        self.is_over = False  #: whether bubblewrap may end now
        self._bubblewrap = bubblewrap
        self._reaper = reaper
        self._program = program
        self._until_s = 0.0
        self._handle = os.pidfd_open(program)
        send_signal(bubblewrap, signal.SIGSTOP)

    def look(self) -> None:
        """Let bubblewrap end when the program has, and the others are gone or had their moment."""
        if self.is_over or not self._has_program_ended(0):
            return
        now_s = time.monotonic()
        self._until_s = self._until_s or now_s + GRACE_S
        self.left = len([pid for pid in list_tree(self._reaper)[1:] if pid != self._program])
        if not self.left or now_s > self._until_s:
            self.end()

    def wait(self, timeout_s: float) -> None:
        """Return when there may be something new, or the time is over."""
        if self._has_program_ended(timeout_s) and self._until_s:
            time.sleep(min(timeout_s, POLL_S))

    def end(self) -> None:
        """Wait no longer."""
        if not self.is_over:
            self.is_over = True
            os.close(self._handle)
            send_signal(self._bubblewrap, signal.SIGCONT)

    def _has_program_ended(self, timeout_s: float) -> bool:
        waiting = select.poll()
        waiting.register(self._handle, select.POLLIN)
        return bool(waiting.poll(timeout_s * 1000))
