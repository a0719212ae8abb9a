"""What services said in their logs that nobody who reads them should have to see.

In:  the logs of a drill's services.
Out: a sentence for each fault of ciapp's own, each thread that died, and each traceback that no fault of the
     drill explains.

A log line begins with its time; what follows without one, a traceback mostly, belongs to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

TRACEBACK = "Traceback (most recent call last)"
#: Nothing explains these.
NEVER = ("fault of ciapp's own", "Exception in thread", "Fatal Python error")
#: How lines begin whose traceback is Celery's way to tell of a fault of the drill.
EXPECTED = (
    r"CRITICAL Unrecoverable error: OSError\(28,",  # its disk is full
    r"ERROR   Task handler raised error: WorkerLostError\(",  # a pool process was killed
    # Garbage was sent.
    r"CRITICAL Can't decode message body: (ContentDisallowed|DecodeError)\(",
    r"ERROR   Received invalid task message: ",
    r"ERROR   Received unregistered task of type 'ciapp\.no_such_task'",
    r"ERROR   Task ciapp\.run_commit\[a\] raised unexpected: TypeError\(",
    # The broker was away, or was killed.
    r"CRITICAL Couldn't ack (\d+|'[\w-]+'), reason:",
    r"ERROR   Callback <promise\S* --> <bound method Message\.ack_log_error",
    r"WARNING consumer: Connection to broker lost\.",
    r"CRITICAL Unrecoverable error: \S*Connection\w*Error\(",
    r"ERROR   Error cleaning up after event loop: (BrokenPipe|Connection)\w*Error\(",
    r"ERROR   Error on \w+ \w+: (BrokenPipe|\w*Connection)\w*Error\(",  # while its worker was told to end
    r"ERROR   Error in timer: BrokerError\('broker folder \S+ was removed under us; connect again'\)",
)
TIME = r"(?:\d{4}-\d\d-\d\dT[\d:]+Z |\[[A-Z] \d{6} [\d:]+ \w+:\d+\] )"  # the latter is Flower's
#: A traceback that explains the one before it, or that a pool process has sent along as text.
FOLLOWS = re.compile(
    r"(?:During handling of the above exception, another exception occurred:|"
    r"The above exception was the direct cause of the following exception:)\s+$|\"\"\"\s*$"
)


def find_complaints(logs: Iterable[Path]) -> list[str]:
    """A sentence for each different complaint, with how often it was made."""
    found = Counter(said for log in logs for said in complaints(log.name, log.read_text(errors="replace")))
    return [said if number == 1 else f"{said}, {number} times" for said, number in found.items()]


def complaints(name: str, text: str) -> Iterator[str]:
    """Those of one log."""
    for entry in re.split(rf"(?m)^(?={TIME})", text):
        for word in NEVER:
            if word in entry:
                line = next(line for line in entry.splitlines() if word in line)
                yield f"{name} tells of a fault: {_without_time(line)}"
        number = _tracebacks(entry)
        is_expected = any(re.match(TIME + pattern, entry) for pattern in EXPECTED)
        # One that is not its line's own was printed by whoever did not live to log it.
        if number > is_expected:
            lines = entry.strip().splitlines()
            yield f"{name} has a traceback: {_without_time(lines[0])} … {lines[-1][:200]}"


def _tracebacks(entry: str) -> int:
    """How many there are, those left out that belong to another."""
    before = entry.split(TRACEBACK)[:-1]
    return sum(not FOLLOWS.search(text) for text in before)


def _without_time(line: str) -> str:
    return re.sub(TIME, "", line)[:200]
