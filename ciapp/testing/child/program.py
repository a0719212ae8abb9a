"""The child's story: orders → channels → discovery → manifest → run → end.

In:  a descriptor with the parent's orders.
Out: events, and the exit status that unittest would give.
"""

from __future__ import annotations

import faulthandler
import marshal
import os
import sys

from .channel import Channel, move_up, quote

__unittest = True


def main(descriptor: int) -> None:
    """Follow the orders and leave the interpreter the way unittest does."""
    with open(descriptor, "rb") as file:
        orders = marshal.load(file)
    faults = move_up(orders["faults"], 3)
    os.close(orders["faults"])
    faulthandler.enable(faults)
    faulthandler.register(orders["dump"], faults)
    # What a test prints is then in its output even when it crashes in the next line.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    channel = Channel(orders["nonce"], orders["events"])
    version = ".".join(str(part) for part in sys.version_info[:3])
    channel.emit("hello", f',"pid":{os.getpid()},"python":{quote(version)}')
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.getcwd()
    from . import running  # unittest, from here on, is what the checkout's sys.path makes it

    sys.exit(0 if running.run(orders, channel) else 1)
