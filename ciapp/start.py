"""The first module that the command line imports: nothing is collected while modules load.

They make many objects and hardly any garbage, and the collector looks through all of them again and again:
`ciapp status` took 786 ms of processor time with it, 539 ms without (medians of ten pairs, a busy machine).
What was loaded is never garbage, so the collector leaves it out afterwards, in forked processes as well.
"""

from __future__ import annotations

import gc

gc.disable()


def loaded() -> None:
    """All that every command needs has been imported."""
    gc.freeze()
    gc.enable()
