"""The child's story: orders → channels → discovery → manifest → run → end.

In:  a descriptor with the parent's orders.
Out: events, and the exit status that unittest would give.
"""

from __future__ import annotations

import faulthandler
import gc
import marshal
import os
import sys

from .channel import Channel, move_up, quote

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any

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

    known = frozenset(sys.modules)
    is_good = running.run(orders, channel)
    # The verdict is told. What is left is the interpreter's exit, whose collections would search all that was
    # ever imported, for some 7 ms; exit functions, threads and modules are seen to as ever.
    if not _may_finalize(known):
        gc.freeze()
    sys.exit(0 if is_good else 1)


def _may_finalize(known: frozenset[str]) -> bool:
    """Whether the end of an object may do anything: by a __del__, or in a compiled module.

    Only of what has been imported besides the `known` modules; compiled ones of Python's own do no harm.
    """
    try:
        for name, module in list(sys.modules.items()):
            file = None if name in known else getattr(module, "__file__", None)
            if file is not None and file.endswith(".so") and "lib-dynload" not in file:
                return True
        classes: list[Any] = [object]
        seen = {id(object)}
        for cls in classes:  # which grows
            if "__del__" in cls.__dict__ and cls.__module__ not in known:
                return True
            below = [sub for sub in type.__subclasses__(cls) if id(sub) not in seen]
            seen.update(map(id, below))
            classes += below
    except Exception:  # something that cannot even be looked at
        return True
    return False
