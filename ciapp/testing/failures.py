"""Why uv failed, and whose fault that is.

In:  how uv ended, and what the commit asked for.
Out: who is to blame, and a sentence.

uv has two exit codes for everything that goes wrong, so its words decide. A server that only the commit names
is the commit's; the registry of the settings is ours, and so is the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from urllib.parse import urlsplit

from ciapp.errors import ProjectError
from ciapp.testing.program import Ended

UNREACHABLE = re.compile(
    r"error sending request|HTTP status server error|429 Too Many Requests|error decoding response"
    r"|operation timed out|network timeout|connection (closed|reset)|network was disabled"
    r"|lack of valid authentication credentials"
)
OF_THIS_HOST = re.compile(r"No space left on device|Read-only file system|Disk quota|Input/output error")
NEEDS_BUILD = re.compile(r"Wheels are required for|[Bb]uilding (from source|source dist\w*)[^\n]*disabled")
WITHOUT_WHEEL = re.compile(r"Wheels are required for `([^`]+)`")
LONGEST_LINE = 200
FAILED_URL = re.compile(r"https?://[^\s)'\"]+")


class Blame(Enum):
    """Whose a failure of uv's is."""

    COMMIT = "the commit asks for what cannot be had"
    SOURCE = "something would have to be built from source"
    REGISTRY = "the registry does not answer"
    HOST = "this host cannot do it"


class NeedsSource(Exception):  # noqa: N818 - it is no error yet
    """Something that is wanted has no wheel that would do here."""

    def __init__(self, ended: Ended) -> None:
        names = dict.fromkeys(WITHOUT_WHEEL.findall(ended.output))
        super().__init__(f"there is no wheel of {', '.join(names)}" if names else last_line(ended))
        self.ended = ended


def find_blame(ended: Ended, asked_for: Iterable[str]) -> Blame:
    """Whose fault it is that uv failed; `asked_for` is what the commit says, URLs of its own included."""
    said = ended.output
    if ended.breach:
        return Blame.COMMIT
    if OF_THIS_HOST.search(said):
        return Blame.HOST
    if UNREACHABLE.search(said):
        own_hosts = {urlsplit(url).hostname for line in asked_for for url in FAILED_URL.findall(line)}
        failed_hosts = {urlsplit(url).hostname for url in FAILED_URL.findall(said)}
        return Blame.COMMIT if failed_hosts & own_hosts else Blame.REGISTRY
    if NEEDS_BUILD.search(said):
        return Blame.SOURCE
    # uv says 1 for what cannot be resolved, 2 for what went wrong on the way; a signal is nobody's wish.
    return Blame.HOST if ended.status is not None and ended.status < 0 else Blame.COMMIT


def cannot_be_installed(ended: Ended) -> ProjectError:
    """The commit's own failure to be installed."""
    return ProjectError(f"the environment cannot be installed: {last_line(ended)}", output=ended.output)


def last_line(ended: Ended) -> str:
    """The most telling line: why the program was ended, uv's first cause, what was closed, or the last."""
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    causes = [line.removeprefix("cause: ") for line in lines if line.startswith("cause: ")]
    closed = [line for line in lines if "Permission denied" in line]
    if ended.breach or not lines:
        return ended.breach or f"it ended with status {ended.status}"
    told = [line for line in lines if not line.startswith("hint: ")] or lines
    line = causes[0] if causes else closed[-1] if closed else told[-1]
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"
