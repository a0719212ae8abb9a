"""Faults of the libraries we stand on that would need a person, each mended at its smallest place.

redis      a restart of Redis in mid-task ends a worker
consumer   a message that is no task ends every worker that is given it; a broker that refuses a worker ends
           it with a traceback, or has it try again without a pause
queues     a queue that RabbitMQ has lost hold of keeps every worker from all others
stopping   a worker that is told to stop just when a process was given a task waits 30 s for nothing

A mend says what was seen with which version, and stays off where the library has not the fault.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES


def apply() -> None:
    """Mend what is used from now on. Nothing is imported before it is needed."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "ciapp.mends.redis:Transport"
