"""Files without a name that processes hold on to: space that no walk over folders finds.

In:  processes, and one of ours that sees what the run sees.
Out: the size of each such file (deleted, or anonymous as memfd and shared memory are), and what may be
     hidden.

A file lives as long as a descriptor of any thread, or a mapping. Two things hide one from here: a message to
a socket that carries descriptors, and a file system that the sandbox does not have, which takes a user
namespace to mount (where the kernel does not filter calls) and then only a descriptor to keep. A socket tells
how many descriptors its messages carry; one that is itself in a message, or that nobody has accepted, tells
nothing.
"""

# Tests may hold a million descriptors: plain calls cost a third.
# ruff: noqa: PTH115, PTH116, PTH123, PTH208
from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence

from ciapp.testing.processes import count_sockets, namespace_of

DELETED = b" (deleted)"
ANONYMOUS = b"/memfd:"  #: how mappings call a file that only a descriptor can have described
File = tuple[int, int]  #: device and inode
RECORDS = (b"\nlock:", b"\ntfd:")  #: of a descriptor: a lock on the file, a descriptor that epoll watches
LOOK_S = 0.5  #: what takes longer to look through is taken to hide whatever it can


class Holdings:
    """What some processes hold at this moment."""

    def __init__(self, leader: int, tree: Sequence[int], *, with_records: bool = False) -> None:
        """`leader` has the user namespace and the mounts that the run was given.

        To look for records takes three times as long where there are many descriptors.
        """
        self._with_records = with_records
        self.sizes: dict[File, int] = {}  #: bytes on disk or in memory
        self._extents: dict[File, int] = {}  #: how much is mapped of files whose size is not to be had
        self._in_flight = 0  #: descriptors in messages, which may be of files that nobody else holds
        self._records = 0
        self._attributes: dict[File, int] = {}  #: how many a file in memory has
        self.queues = 0  #: of events that inotify keeps until somebody reads them
        self.has_own_mounts = False  #: whether there may be file systems that only the run sees
        self._sockets: dict[int, int] = {}
        self._pipes: set[File] = set()
        self._mounts = _mounts(leader)
        self._until_s = time.monotonic() + LOOK_S
        namespace = namespace_of(leader, "user")
        for pid in tree:
            if namespace_of(pid, "user") not in ("", namespace):
                self.has_own_mounts = True
            self._look_at_mappings(pid)
            for task in _names(f"/proc/{pid}/task"):
                self._look_at_descriptors(f"/proc/{pid}/task/{task}")
            if time.monotonic() > self._until_s:
                self._in_flight, self.has_own_mounts = sys.maxsize, True
                return
        self._in_flight = sum(self._sockets.values())
        if self._in_flight and count_sockets(leader).number > self.sockets:
            self._in_flight = sys.maxsize  # the sockets that no process holds may carry any number

    @property
    def sockets(self) -> int:
        """How many sockets processes hold."""
        return len(self._sockets)

    @property
    def pipes(self) -> int:
        """How many pipes there may be, those in messages included."""
        return len(self._pipes) + self._in_flight

    @property
    def records(self) -> int:
        """How many locks and watches there may be; a descriptor in a message may have any number."""
        return sys.maxsize if self._in_flight else self._records

    @property
    def attributes(self) -> int:
        """How many extended attributes there may be of files without a name."""
        return sum(self._attributes.values())

    def on(self, devices: frozenset[int]) -> int:
        """Bytes of those that stand on some devices."""
        return sum(size for (device, _), size in self.sizes.items() if device in devices)

    def besides(self, devices: frozenset[int]) -> int:
        """Bytes of those that stand anywhere else."""
        return sum(self.sizes.values()) - self.on(devices)

    def hidden(self, file_bytes: int, devices: frozenset[int], *, besides: bool = False) -> int:
        """Bytes that there may be more on some devices, or besides them, at most.

        No file is larger than `file_bytes`.
        """
        unsure = self._extents.keys() - self.sizes.keys()
        extents = sum(self._extents[file] for file in unsure if (file[0] in devices) is not besides)
        return extents + self._in_flight * file_bytes

    def _look_at_descriptors(self, task: str) -> None:
        for link in ("cwd", "root"):
            if not self._is_on_known_mount(f"{task}/{link}"):
                self.has_own_mounts = True
        for name in _names(f"{task}/fd"):
            try:
                facts = os.stat(f"{task}/fd/{name}")
            except OSError:
                continue
            if self._with_records:
                said = _read(f"{task}/fdinfo/{name}")
                self._records += sum(map(said.count, RECORDS))
            if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0:
                self._add(facts, f"{task}/fd/{name}")
            elif stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
                told = _facts(_read(f"{task}/fdinfo/{name}"))
                if told and told.get("mnt_id") not in self._mounts:
                    self.has_own_mounts = True
            elif stat.S_ISSOCK(facts.st_mode):
                self._sockets[facts.st_ino] = int(_facts(_read(f"{task}/fdinfo/{name}")).get("scm_fds", 0))
            elif stat.S_ISFIFO(facts.st_mode):
                self._pipes.add((facts.st_dev, facts.st_ino))
            elif self._with_records and stat.S_IFMT(facts.st_mode) == 0:
                self.queues += _link(f"{task}/fd/{name}") == "anon_inode:inotify"
            if time.monotonic() > self._until_s:
                return

    def _look_at_mappings(self, pid: int) -> None:
        for span, start, device, inode, path in _mappings(pid):
            if not path.endswith(DELETED):
                continue
            major, _, minor = device.partition(":")
            file = (os.makedev(int(major, 16), int(minor, 16)), inode)
            there = f"/proc/{pid}/map_files/{span}"
            try:
                facts = os.stat(there)
            except OSError:
                # Only root may look: others know how much of it is mapped.
                begin, _, end = span.partition("-")
                extent = start + int(end, 16) - int(begin, 16)
                self._extents[file] = max(extent, self._extents.get(file, 0))
                if path.startswith(ANONYMOUS):
                    self._attributes.setdefault(file, sys.maxsize)
            else:
                self._add(facts, there)

    def _add(self, facts: os.stat_result, path: str) -> None:
        file = (facts.st_dev, facts.st_ino)
        self.sizes[file] = facts.st_blocks * 512
        if self._with_records:
            self._attributes[file] = _count_attributes(path)

    def _is_on_known_mount(self, path: str) -> bool:
        """Whether a folder stands on a mount of the sandbox; of one that is gone, nothing is known."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            return _facts(_read(f"/proc/self/fdinfo/{descriptor}")).get("mnt_id") in self._mounts
        finally:
            os.close(descriptor)


def _mounts(pid: int) -> frozenset[str]:
    """The numbers of a process's mounts."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as lines:
            return frozenset(line.split(b" ", 1)[0].decode("ascii") for line in lines)
    except OSError:
        return frozenset()


def _mappings(pid: int) -> Iterator[tuple[str, int, str, int, bytes]]:
    """Files that a process has mapped: addresses, offset, device, inode, path."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as lines:
            for line in lines:
                words = line.split(None, 5)
                if len(words) == 6 and words[4] != b"0":
                    span, _, start, device, inode, path = words
                    there = (device.decode("ascii"), int(inode), path.rstrip(b"\n"))
                    yield span.decode("ascii"), int(start, 16), *there
    except OSError:
        return


def _count_attributes(path: str) -> int:
    """Those that whoever has a file may give it."""
    try:
        return sum(name.startswith("user.") for name in os.listxattr(path))
    except OSError as error:
        return sys.maxsize if error.errno == errno.E2BIG else 0  # more names than may be listed


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _facts(said: bytes) -> dict[str, str]:
    lines = said.decode("utf-8", "replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
