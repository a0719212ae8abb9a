"""By how much this host has come to use more memory, for what no process has in its sum.

In:  /proc/meminfo, and /proc/zoneinfo for what the former takes for used while it is only kept at hand.
Out: growth since the lowest that was seen, of shared memory and of the kernel's own.

Each processor keeps pages at hand, up to an eighth of all there are: what the kernel takes of those changes
no figure of the former.
"""

# Asked several times a second for each run: plain calls cost a third.
# ruff: noqa: PTH123
from __future__ import annotations

import re

from ciapp.testing.processes import PAGE

AT_HAND = re.compile(rb"^ +count: +(\d+)", re.MULTILINE)
#: What is used for something that has its own sum, or is given back when memory runs out.
ACCOUNTED = (b"MemFree", b"Buffers", b"Cached", b"SwapCached", b"AnonPages", b"SReclaimable")
USES = re.compile(rb"^(MemTotal|Shmem|%s): +(\d+) kB" % b"|".join(ACCOUNTED), re.MULTILINE)


class HostGrowth:
    """What this host uses beyond the lowest that was seen, in bytes."""

    def __init__(self) -> None:
        self.shared = 0  #: in tmpfs and the like
        self.kernel = 0  #: by the kernel itself, for good
        self._lowest_shared, kernel = _used()
        self._lowest_kernel = kernel - _at_hand()

    def look(self, room: int) -> None:
        """Measure again; as closely as it takes to say whether both together are above `room`."""
        shared, kernel = _used()
        self._compare(shared, kernel)
        if self.shared + self.kernel > room:
            self._compare(shared, kernel - _at_hand())

    def _compare(self, shared: int, kernel: int) -> None:
        self._lowest_shared = min(self._lowest_shared, shared)
        self._lowest_kernel = min(self._lowest_kernel, kernel)
        self.shared, self.kernel = shared - self._lowest_shared, kernel - self._lowest_kernel


def _used() -> tuple[int, int]:
    """Shared memory, and the kernel's with what is at hand."""
    with open("/proc/meminfo", "rb") as file:
        uses = {name: int(size) for name, size in USES.findall(file.read())}
    kernel = uses[b"MemTotal"] - sum(uses.get(name, 0) for name in ACCOUNTED)
    return uses.get(b"Shmem", 0) * 1024, kernel * 1024


def _at_hand() -> int:
    try:
        with open("/proc/zoneinfo", "rb") as file:
            return sum(map(int, AT_HAND.findall(file.read()))) * PAGE
    except OSError:
        return 0  # kept from us: then there is more to look at
