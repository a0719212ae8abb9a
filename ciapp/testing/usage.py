"""What a run uses that the kernel does not limit for it: memory and disk of all its processes together.

In:  the folders on disk that a run may write to, its processes, and the memory file systems that only they
     see.
Out: a sentence once a limit is broken.

Looking must cost less than what is looked at. So pages that processes share are told apart, and files without
a name looked for, only when plain sums are too high, and folders are walked only when the disk has filled up
meanwhile, or seldom. What could be hidden is then taken to be all that this host has come to use since.
"""

# Asked several times a second for each run: plain calls cost a third.
# ruff: noqa: PTH116
from __future__ import annotations

import errno
import os
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from weakref import WeakSet, finalize

from ciapp.settings import Limits
from ciapp.testing.folders import OPEN_FOLDER
from ciapp.testing.holdings import Holdings
from ciapp.testing.host_memory import HostGrowth
from ciapp.testing.kernel_memory import KernelMemory
from ciapp.testing.leavings import OPEN_TO_ALL, list_leavings
from ciapp.testing.processes import list_tellers, list_tree, proportional_bytes, resident_bytes

MIB = 1 << 20
WALK_EVERY_S = 1.0
WALK_SHARE = 0.05  #: of the time, at most, goes into walking
SLICE_S = 0.02  #: for which one look may go on walking
WALK_AT_LEAST_EVERY_S = 15.0
GROWTH_WORTH_A_WALK = 16 * MIB
LONGEST_PATH = 900  #: characters, which may take four bytes each
MOST_ANCHORS = 64  #: folders held open at a time, whatever a commit makes of them
FILE_BYTES = 4096  #: what a file on disk counts for even when it is empty, for their number is limited too
INODE_BYTES = 1024  #: kernel memory that one file of a tmpfs takes, about


class Usage:
    """Memory and disk of one run, held against its limits."""

    def __init__(self, limits: Limits, folders: Sequence[Path], *, owner: int | None = None) -> None:
        """`folders` are those on disk that the run may write to; what stands in them already counts too.

        `owner` is the run's own identity where it also sees the folders of this host that everybody may
        write to: whatever is its there counts as disk, in memory or not.
        """
        self._limits = limits
        self._folders = folders
        self._owner = owner
        open_to_all = [Path(folder) for folder in OPEN_TO_ALL if owner is not None]
        self._filling = [*folders, *filter(Path.is_dir, open_to_all)]
        self._devices = frozenset(os.stat(folder).st_dev for folder in folders)
        self._filled_at_start, self._taken = _filled(folders), _taken(self._filling)
        self._host = HostGrowth()
        self._kernel = KernelMemory()
        self._walk: Generator[int, None, None] | None = None
        self._walked = 0
        self._walk_at = time.monotonic() + WALK_EVERY_S
        self._walk_took_s = 0.0

    def breach(self, leader: int, memory_folders: Iterable[str] = ()) -> str:
        """Which limit is broken, as a sentence; empty when none is.

        `leader` is a process of ours whose descendants are the run's processes, and `memory_folders` what it
        sees as mount points of tmpfs that belong to the run.
        """
        limits = self._limits
        tree = list_tree(leader)[1:]
        if len(tree) > limits.processes:
            return f"the run has {len(tree)} processes; {limits.processes} are allowed"
        tree = list_tellers(tree)
        memory_mib = self._memory(leader, tree, memory_folders) // MIB
        if memory_mib > limits.memory_mib:
            return f"the run uses {memory_mib} MiB of memory; {limits.memory_mib} are allowed"
        disk_mib = self._disk(leader, tree) // MIB
        if disk_mib > limits.disk_mib:
            return f"the run uses {disk_mib} MiB of disk; {limits.disk_mib} are allowed"
        return ""

    def close(self) -> None:
        """Let go of the folders that a walk has under way."""
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def _memory(self, leader: int, tree: Sequence[int], memory_folders: Iterable[str]) -> int:
        limit = self._limits.memory_mib * MIB
        # Before its own are mounted, a process sees the host's folders, which are no memory of the run's.
        own = [
            there
            for folder in memory_folders
            if _device(there := f"/proc/{leader}/root{folder}") != _device(folder)
        ]
        files, mapped = sum(map(_tmpfs_bytes, own)), sum(map(resident_bytes, tree))
        self._host.look(limit - files - mapped)
        grown, kernel = self._host.shared, self._host.kernel
        if files + mapped + grown + kernel <= limit:
            return files + mapped
        # Files without a name are memory that no process has to map, and mapped ones count twice in the sums.
        held = Holdings(leader, tree, with_records=True)
        counted = self._devices.union(*map(_device, own))
        files += held.besides(counted)
        files += min(grown, held.hidden(self._limits.file_mib * MIB, counted, besides=True))
        if held.has_own_mounts:
            files = max(files, grown)
        kept = self._kernel.most(kernel, leader, tree, held)
        if files + mapped + kept <= limit:
            return files + mapped + kept
        parts = [proportional_bytes(pid) for pid in tree]
        return kept + sum(private for private, _ in parts) + max(files, sum(part for _, part in parts))

    def _disk(self, leader: int, tree: Sequence[int]) -> int:
        """Bytes in the folders, when they have just been counted; else 0.

        A folder may hold a million files: it is counted in slices, so that whoever asks can go on watching.
        """
        now = time.monotonic()
        if self._walk is None:
            if now < self._walk_at:
                return 0
            taken = _taken(self._filling)
            if taken - self._taken < GROWTH_WORTH_A_WALK and now < self._walk_at + WALK_AT_LEAST_EVERY_S:
                return 0
            self._taken = taken
            self._walk, self._walked, self._walk_took_s = self._count(), 0, 0.0
        for used in self._walk:
            self._walked += used
            if time.monotonic() > now + SLICE_S:
                self._walk_took_s += SLICE_S
                return self._walked
        self._walk = None
        self._walk_took_s += time.monotonic() - now
        self._walk_at = now + max(WALK_EVERY_S, self._walk_took_s / WALK_SHARE)
        held = Holdings(leader, tree)
        hidden = min(self._written(), held.hidden(self._limits.file_mib * MIB, self._devices))
        return self._walked + held.on(self._devices) + hidden

    def _count(self) -> Generator[int, None, None]:
        """Disk of everything in the folders, file by file: each name of a file counts, and for something."""
        anchors: WeakSet[_Anchor] = WeakSet()
        waiting: list[tuple[_Anchor | None, str]] = [(None, os.fspath(folder)) for folder in self._folders]
        for entry in [] if self._owner is None else list_leavings(self._owner):
            yield _blocks(entry)
            if entry.is_dir(follow_symlinks=False):
                waiting.append((None, entry.path))
        while waiting:
            anchor, path = waiting.pop()
            try:
                if len(path) > LONGEST_PATH:
                    if len(anchors) == MOST_ANCHORS:
                        raise OSError(errno.EMFILE, "too many folders are too deep")
                    anchor, path = _Anchor(anchor, path), "."
                    anchors.add(anchor)
                folder = _open_folder(anchor, path)
                try:
                    with os.scandir(folder) as entries:
                        for entry in entries:
                            yield _blocks(entry)
                            if entry.is_dir(follow_symlinks=False):
                                waiting.append((anchor, f"{path}/{entry.name}"))
                finally:
                    os.close(folder)
            except FileNotFoundError:
                continue
            except OSError:
                # Closed, or deep in many places: whoever hides files is taken to have written all there is.
                yield self._written()
                return

    def _written(self) -> int:
        """By how much the disk is fuller than at the start, whoever did that."""
        return max(0, _filled(self._folders) - self._filled_at_start)


class _Anchor:
    """A folder held open, so that paths below it begin there: the kernel takes none longer than 4 KiB."""

    def __init__(self, above: _Anchor | None, path: str) -> None:
        self.descriptor = _open_folder(above, path)
        finalize(self, os.close, self.descriptor)


def _open_folder(anchor: _Anchor | None, path: str) -> int:
    return os.open(path, OPEN_FOLDER, dir_fd=anchor.descriptor if anchor else None)


def _filled(folders: Sequence[Path]) -> int:
    facts = [os.statvfs(folder) for folder in folders]
    return sum((one.f_blocks - one.f_bfree) * one.f_frsize for one in facts)


def _taken(folders: Sequence[Path]) -> int:
    """Grows with what the disk holds, in files as well as in bytes."""
    facts = [os.statvfs(folder) for folder in folders]
    return _filled(folders) + sum((one.f_files - one.f_ffree) * FILE_BYTES for one in facts)


def _tmpfs_bytes(folder: str) -> int:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return 0
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize + (facts.f_files - facts.f_ffree) * INODE_BYTES


def _device(folder: str) -> frozenset[int]:
    try:
        return frozenset({os.stat(folder).st_dev})
    except OSError:
        return frozenset()


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return max(FILE_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
    except OSError:
        return 0  # gone meanwhile
