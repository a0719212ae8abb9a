"""What a run uses that the kernel does not limit for it: memory and disk of all its processes together.

In:  the folders on disk that a run may write to, its processes, and the memory file systems that only they
     see.
Out: a sentence once a limit is broken.

Looking must cost less than what is looked at. So pages that processes share are told apart only when plain
sums are too high, and folders are walked only when the disk has filled up meanwhile, or seldom.
"""

# Asked several times a second for each run: plain calls cost a third.
# ruff: noqa: PTH116, PTH208
from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ciapp.settings import Limits
from ciapp.testing.processes import list_tree, mount_namespace, proportional_bytes, resident_bytes

MIB = 1 << 20
WALK_EVERY_S = 1.0
WALK_SHARE = 0.05  #: of the time, at most, goes into walking
SLICE_S = 0.02  #: for which one look may go on walking
WALK_AT_LEAST_EVERY_S = 15.0
GROWTH_WORTH_A_WALK = 16 * MIB
INODE_BYTES = 1024  #: kernel memory that one file of a tmpfs takes, about


class Usage:
    """Memory and disk of one run, held against its limits."""

    def __init__(self, limits: Limits, folders: Sequence[Path]) -> None:
        """`folders` are those on disk that the run may write to; what stands in them already counts too."""
        self._limits = limits
        self._folders = folders
        self._devices = {os.stat(folder).st_dev for folder in folders}
        self._filled_at_start = self._filled = _filled(folders)
        self._shared_at_start = _shared_memory()
        self._walk: Iterator[int] | None = None
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
        memory_mib = self._memory(leader, tree, memory_folders) // MIB
        if memory_mib > limits.memory_mib:
            return f"the run uses {memory_mib} MiB of memory; {limits.memory_mib} are allowed"
        disk_mib = self._disk(tree) // MIB
        if disk_mib > limits.disk_mib:
            return f"the run uses {disk_mib} MiB of disk; {limits.disk_mib} are allowed"
        return ""

    def _memory(self, leader: int, tree: Sequence[int], memory_folders: Iterable[str]) -> int:
        files = sum(_tmpfs_bytes(f"/proc/{leader}/root{folder}") for folder in memory_folders)
        grown = _shared_memory() - self._shared_at_start
        if grown > self._limits.memory_mib * MIB // 8:
            # Anonymous files (memfd) are memory that no process has to map.
            files += sum(one.st_blocks * 512 for one in _unlinked(tree) if one.st_dev not in self._devices)
            # A process with mounts of its own may have a tmpfs there that is not to be seen from here.
            mounts = mount_namespace(leader)
            if any(mount_namespace(pid) not in ("", mounts) for pid in tree):
                files = max(files, grown)
        used = files + sum(map(resident_bytes, tree))
        if used <= self._limits.memory_mib * MIB:
            return used
        return files + sum(map(proportional_bytes, tree))

    def _disk(self, tree: Sequence[int]) -> int:
        """Bytes in the folders, when they have just been counted; else 0.

        A folder may hold a million files: it is counted in slices, so that whoever asks can go on watching.
        """
        now = time.monotonic()
        if self._walk is None:
            if now < self._walk_at:
                return 0
            filled = _filled(self._folders)
            if filled - self._filled < GROWTH_WORTH_A_WALK and now < self._walk_at + WALK_AT_LEAST_EVERY_S:
                return 0
            self._filled = filled
            self._walk, self._walked, self._walk_took_s = self._count(), 0, 0.0
        for used in self._walk:
            self._walked += used
            if time.monotonic() > now + SLICE_S:
                self._walk_took_s += SLICE_S
                return self._walked
        self._walk = None
        self._walk_took_s += time.monotonic() - now
        self._walk_at = now + max(WALK_EVERY_S, self._walk_took_s / WALK_SHARE)
        return self._walked + sum(
            one.st_blocks * 512 for one in _unlinked(tree) if one.st_dev in self._devices
        )

    def _count(self) -> Iterator[int]:
        """Disk blocks of everything in the folders, file by file; each name of a file counts."""
        waiting: list[str | Path] = [*self._folders]
        while waiting:
            try:
                with os.scandir(waiting.pop()) as entries:
                    for entry in entries:
                        yield _blocks(entry)
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
            except FileNotFoundError:
                continue
            except OSError:
                # Closed, or too deep: whoever hides files is taken to have written all that was written.
                yield max(0, _filled(self._folders) - self._filled_at_start)
                return


def _filled(folders: Sequence[Path]) -> int:
    facts = [os.statvfs(folder) for folder in folders]
    return sum((one.f_blocks - one.f_bfree) * one.f_frsize for one in facts)


def _tmpfs_bytes(folder: str) -> int:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return 0
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize + (facts.f_files - facts.f_ffree) * INODE_BYTES


def _shared_memory() -> int:
    """Memory in tmpfs and the like on this whole host."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024
    return 0


def _blocks(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0  # gone meanwhile


def _unlinked(tree: Sequence[int]) -> Iterator[os.stat_result]:
    """Files without a name that these processes hold open, once each."""
    seen = set()
    for pid in tree:
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                facts = os.stat(f"/proc/{pid}/fd/{descriptor}")
            except OSError:
                continue
            key = (facts.st_dev, facts.st_ino)
            if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0 and key not in seen:
                seen.add(key)
                yield facts
