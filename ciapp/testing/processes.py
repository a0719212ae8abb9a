"""Process trees as /proc tells of them: who descends from whom, and how much memory they hold.

A process that ends while it is looked at is simply not there; nothing here raises for it.
"""

# This runs several times a second for each run, and plain calls cost a third.
# ruff: noqa: PTH115, PTH116, PTH208
from __future__ import annotations

import os
import re
import signal
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ciapp.testing import sweeper

PAGE = os.sysconf("SC_PAGE_SIZE")


class Sockets(NamedTuple):
    """Sockets of a network namespace."""

    number: int
    inet_bytes: int  #: of TCP and UDP, in all namespaces


def list_children(pid: int) -> list[int]:
    """The processes whose parent this one is, oldest first, whichever of its threads made them."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return children
    for thread in threads:
        children += [int(word) for word in _read(f"/proc/{pid}/task/{thread}/children").split()]
    return children


def list_tree(pid: int) -> list[int]:
    """A process and everything that descends from it, parents before their children."""
    found = [pid]
    waiting = deque(found)
    while waiting:
        children = list_children(waiting.popleft())
        found += children
        waiting += children
    return found


def list_serving(prefix: str) -> list[int]:
    """The processes that serve a slot by a name that begins so: their own, or one in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if sweeper.is_serving(pid, os.fsencode(prefix)):
                found.append(int(pid))
        except OSError:
            continue
    return found


def list_tellers(pids: Iterable[int]) -> list[int]:
    """For each process the thread by whose number /proc tells of its memory and descriptors.

    That is the first one, unless it has ended before the others: then it reads as a process without memory.
    """
    return [pid if resident_bytes(pid) else _living_thread(pid) for pid in pids]


def count_threads(uid: int) -> int:
    """The threads that run under an identity on this host, as RLIMIT_NPROC counts them."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


def resident_bytes(pid: int) -> int:
    """Memory mapped in by a process, pages that it shares counted in full."""
    words = _read(f"/proc/{pid}/statm").split()
    return int(words[1]) * PAGE if words else 0


def proportional_bytes(pid: int) -> tuple[int, int]:
    """Memory of a process, each shared page divided by those who share it: its own kind, and that of files
    in memory (tmpfs, anonymous shared memory).

    The kernel does not tell everybody; then shared pages count in full.
    """
    facts = _sizes(f"/proc/{pid}/smaps_rollup", "Pss_")
    if "Anon" not in facts:
        facts = _sizes(f"/proc/{pid}/status", "Rss")
    return facts.get("Anon", 0) + facts.get("File", 0), facts.get("Shmem", 0)


def table_bytes(pid: int) -> int:
    """Memory in which the kernel keeps where the pages of a process are."""
    return _sizes(f"/proc/{pid}/status", "VmPTE").get("", 0)


def count_sockets(pid: int | str) -> Sockets:
    """Those of a process's network namespace; none when it is gone."""
    facts = _read(f"/proc/{pid}/net/sockstat")
    number = sum(map(int, re.findall(r"^sockets: used (\d+)", facts)))
    pages = sum(map(int, re.findall(r"^(?:TCP|UDP): .*\bmem (\d+)", facts, re.MULTILINE)))
    return Sockets(number, pages * PAGE)


def pid_inside(pid: int) -> int:
    """The number that a process has in the innermost pid namespace it lives in; 0 when it is gone."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return 0


def started_at(pid: int) -> str:
    """When a process started, as the kernel counts: with its number, it names a process for ever."""
    return " ".join(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20])


def namespace_of(pid: int | str, kind: str) -> str:
    """The name of a process's namespace of a kind, "user" or "net"; empty when it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def send_signal(pid: int, signum: int) -> None:
    """Signal a process; nothing when it is gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def kill_identity(uid: int) -> None:
    """End every process on this host that runs under an identity which is ours to give (root only)."""
    pid = os.fork()
    if pid == 0:
        # Between fork and _exit only system calls: the process that forked may have threads.
        try:
            os.setresuid(uid, uid, uid)
            if os.getresuid() == (uid, uid, uid):
                os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _living_thread(pid: int) -> int:
    """A thread of a process that has memory; the first one where none has."""
    try:
        threads = map(int, os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return pid
    return next(filter(resident_bytes, threads), pid)


def _sizes(path: str, prefix: str) -> dict[str, int]:
    """Bytes, by what follows the prefix in lines as `RssAnon:   12 kB`."""
    lines = (
        line.removeprefix(prefix).split() for line in _read(path).splitlines() if line.startswith(prefix)
    )
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1:] == ["kB"]}


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
