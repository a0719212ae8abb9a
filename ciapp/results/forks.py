"""Keep database connections and forks apart.

In:  blocks in which this process uses a connection; forks of this process, by whatever library.
Out: no child that was forked in the middle of one.

SQLite remembers in its own memory which locks the process holds. A child forked while another thread has a
connection open inherits that memory without the locks: it believes that it holds what it does not, and ends
by deleting the write-ahead log under everybody else. (Seen as "disk I/O error", and as rows that came back,
when a worker replaced a killed pool process in the moment of its own beat.) So a fork waits until no
connection is in use, closes those that the pool keeps, and connections wait while it goes on. A fork must
not be made by a thread that uses a connection itself.

Pooled connections of PostgreSQL would be shared by parent and child: the child forgets them unclosed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

LONGEST_WAIT_S = 60.0  #: for a connection to be closed; a fork that waits longer is no better than a risk


class _Gate:
    """Either any number of connections are in use, or a fork goes on."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._open: Counter[int] = Counter()  # thread → how many
        self._is_forking = False

    def enter(self) -> None:
        thread = threading.get_ident()
        with self._change:
            # A fork waits for a thread that uses one already, so that one must not wait for the fork.
            self._change.wait_for(lambda: not self._is_forking or self._open[thread] > 0)
            self._open[thread] += 1

    def leave(self) -> None:
        thread = threading.get_ident()
        with self._change:
            self._open[thread] -= 1
            self._open += Counter()  # leaves out what is zero
            self._change.notify_all()

    def begin_fork(self) -> None:
        self._change.acquire()
        self._is_forking = True
        self._change.wait_for(lambda: not self._open.total(), LONGEST_WAIT_S)
        for engine in _engines:
            if engine.dialect.name == "sqlite":
                engine.dispose()

    def end_fork(self) -> None:
        self._is_forking = False
        self._change.notify_all()
        self._change.release()

    def begin_anew(self) -> None:
        """In the child, where the threads that held the gate do not exist."""
        self.__init__()  # type: ignore[misc]


_gate = _Gate()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@contextmanager
def open_connection() -> Iterator[None]:
    """A block in which a connection is in use; no fork happens meanwhile."""
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()


def forget_at_fork(engine: Engine) -> None:
    """Have children of this process make connections of their own."""
    _engines.add(engine)


def _begin_child() -> None:
    _gate.begin_anew()
    for engine in _engines:
        engine.dispose(close=False)


os.register_at_fork(before=_gate.begin_fork, after_in_parent=_gate.end_fork, after_in_child=_begin_child)
