"""The hosts of a drill over a network: git host, broker, database and workers, and the cuts between them.

In:  how many worker hosts.
Out: hosts; per pair that has something to say to each other, a cut for longer than a lease.

The drill itself is on the git host: it joins that host's network, and so does whatever it starts without
saying where. A cut is silent, so nobody can tell whether the other is slow, gone, or at work.
"""

from __future__ import annotations

import ctypes
import os
import time
import unittest
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.drill.plan import PlannedFault
from tests.support.network import Host, Network

CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/run/netns")


class Hosts:
    """Five kinds of hosts on a network of their own."""

    def __init__(self, holder: unittest.TestCase, workers: int) -> None:
        self._network = Network(holder)
        self.git, self.broker, self.database = map(self._network.add_host, ("git", "broker", "db"))
        self.workers = [self._network.add_host(f"worker{number}") for number in range(1, workers + 1)]

    def join(self) -> None:
        """Let this thread, and all that it starts from now on, be on the git host."""
        descriptor = os.open(NAMESPACES / self.git.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the drill cannot join the network of its git host")
        finally:
            os.close(descriptor)

    def faults(self, lease_s: float) -> dict[str, Callable[[PlannedFault], None]]:
        """Kind → what cuts off hosts for longer than a lease, once."""

        def worker(fault: PlannedFault) -> Host:
            return self.workers[fault.victim % len(self.workers)]

        def cut(fault: PlannedFault, *pairs: tuple[Host, Host]) -> None:
            with ExitStack() as stack:
                for one, other in pairs:
                    stack.enter_context(self._network.cut(one, other))
                time.sleep(lease_s * 1.5 + fault.lasts_s / 2)

        return {
            "worker cut off from broker": lambda fault: cut(fault, (worker(fault), self.broker)),
            "worker cut off from database": lambda fault: cut(fault, (worker(fault), self.database)),
            "worker cut off from git host": lambda fault: cut(fault, (worker(fault), self.git)),
            "worker cut off from all": lambda fault: cut(
                fault, *((worker(fault), other) for other in (self.broker, self.database, self.git))
            ),
            "git host cut off from broker": lambda fault: cut(fault, (self.git, self.broker)),
            "git host cut off from database": lambda fault: cut(fault, (self.git, self.database)),
        }
