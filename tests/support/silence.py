"""A server that takes connections and never says a word."""

from __future__ import annotations

import socket
import threading
import unittest
from contextlib import suppress


class SilentServer:
    """Listens on this machine until the test ends."""

    def __init__(self, test: unittest.TestCase) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()
        test.addCleanup(self._close)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def connections(self) -> int:
        """How many came until now."""
        return len(self._taken)

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])

    def _close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closing would not
        self._listener.close()
        for taken in self._taken:
            taken.close()
