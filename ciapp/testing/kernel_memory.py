"""Memory that the kernel holds for a run, and that stands in no sum of a process: tables of pages, what is
in sockets and pipes, extended attributes of files without a name, inotify's events, and records of locks on
files and of what epoll watches.

In:  by how much the kernel's memory has grown; the run's processes, and what they hold.
Out: how much of the growth may be the run's.

Tables are told process by process. For the others nobody tells: all that the kernel has come to use since is
taken for theirs, as far as their number allows. The number of sockets is the network namespace's,
since one that is closed lives on for as long as nobody has read what was sent through it.
"""

# Asked several times a second for each run: plain calls cost a third.
# ruff: noqa: PTH123
from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

from ciapp.testing.holdings import Holdings
from ciapp.testing.processes import Sockets, count_sockets, namespace_of, table_bytes

#: By which the kernel's memory grows and shrinks on a host that does little else.
CHANGES_BY_ITSELF = 32 << 20
#: What a socket may be given to send and to receive. It gets twice that and uses one of the two, for what is
#: on its way counts for the sender (unix) or for the receiver (netlink); and the last message goes beyond.
LARGEST = ("net/core/wmem_max", "net/core/rmem_max")
LAST_MESSAGE = 128 << 10
RECORD_BYTES = 256  #: one takes some 200
ATTRIBUTE_BYTES = 128 << 10  #: of 64 KiB and its head, which takes twice as much
EVENT_BYTES = 512  #: with the longest name


class KernelMemory:
    """The kernel's memory, as far as one run has its share in it."""

    def __init__(self) -> None:
        self._at_start = count_sockets("self")

    def most(self, grown: int, leader: int, tree: Sequence[int], held: Holdings) -> int:
        """Bytes that are the run's, at most, while the kernel's memory has grown by so much."""
        tables = sum(map(table_bytes, tree))
        return tables + min(max(0, grown - tables - CHANGES_BY_ITSELF), self._sent(leader, held))

    def _sent(self, leader: int, held: Holdings) -> int:
        """Bytes that there may be in sockets and pipes, and for what else descriptors keep."""
        now = count_sockets(leader)
        self._at_start = Sockets(*map(min, self._at_start, now))
        number = now.number
        if namespace_of(leader, "net") == namespace_of("self", "net"):
            number = max(held.sockets, number - self._at_start.number)
        inet = now.inet_bytes - self._at_start.inet_bytes
        records = held.records * RECORD_BYTES + held.attributes * ATTRIBUTE_BYTES
        events = held.queues and held.queues * _setting("fs/inotify/max_queued_events") * EVENT_BYTES
        pipes = held.pipes and held.pipes * _setting("fs/pipe-max-size")
        return number * _largest_socket() + inet + pipes + records + events


@cache
def _largest_socket() -> int:
    return 2 * max(map(_setting, LARGEST)) + LAST_MESSAGE


@cache
def _setting(name: str) -> int:
    try:
        with open(f"/proc/sys/{name}", "rb") as file:
            return int(file.read())
    except OSError:
        return sys.maxsize  # a container is not told
