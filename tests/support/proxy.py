"""A door to a server that slams at a chosen word, and knows when somebody knocked.

At the word, the server has done as it was told, and nobody hears so. While there is no server, whoever knocks
is let in and shown out.
"""

from __future__ import annotations

import socket
import threading
import time
import unittest
from collections.abc import Iterator

CHUNK = 65536


class SlammingProxy:
    """Forwards connections; once armed, it cuts the first that says the word, and no other."""

    def __init__(self, test: unittest.TestCase, port: int) -> None:
        self.knocks: list[float] = []  #: when each connection came, by the monotonic clock
        self.has_slammed = threading.Event()
        self.has_slammed.set()
        self._target = port
        self._word = self._until = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        test.addCleanup(self._listener.close)
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, word: bytes, until: bytes = b"COMMIT") -> None:
        """Cut once the transaction that has the word is committed; with an empty `until`, at the word."""
        self._word, self._until = word, until
        self.has_slammed.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.knocks.append(time.monotonic())
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # the server is gone, as it is for whoever knocks without us
                client.close()
                continue
            armed = threading.Event()
            for work in (self._forward, self._answer):
                threading.Thread(target=work, args=(client, server, armed), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, armed: threading.Event) -> None:
        spoke = False
        for data in _read(client):
            spoke = not self.has_slammed.is_set() and (spoke or self._word in data)
            if spoke and self._until in data:
                armed.set()
            try:
                server.sendall(data)
            except OSError:
                break
        _close(server)

    def _answer(self, client: socket.socket, server: socket.socket, armed: threading.Event) -> None:
        for data in _read(server):
            if armed.is_set() and self._until in data:  # it is done, and this was to say so
                self.has_slammed.set()
                break
            try:
                client.sendall(data)
            except OSError:
                break
        _close(server)
        _close(client)


def _read(source: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            data = source.recv(CHUNK)
        except OSError:
            return
        if not data:
            return
        yield data


def _close(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
