"""Processes of a test's own: found by a word of their command line, stopped, held and let go."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from ciapp.testing.processes import list_children

GONE_WITHIN_S = 2.0  #: what a run or a fetch has started is gone that soon after its end, whatever ended it


def processes_with(text: str) -> list[int]:
    """The processes of this host, but for this one, whose command line holds a text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def processes_of(config: Path) -> list[int]:
    """The processes that were started with these settings, those of git and its hooks among them."""
    mark, found = f"CIAPP_CONFIG={config}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def gits_of(config: Path) -> list[int]:
    """Those among them that are git, or a helper of its."""
    found = []
    for pid in processes_of(config):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("git"):
                found.append(pid)
    return found


def pool_processes(worker: int) -> list[int]:
    """The pool processes of a worker's main process."""
    return list_children(worker)


class Suspended:
    """A context in which a worker, main process and pool, is stopped: it neither runs nor knows it."""

    def __init__(self, worker: int) -> None:
        self._processes = [worker, *pool_processes(worker)]

    def __enter__(self) -> Suspended:
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self._processes:
            os.kill(process, number)
