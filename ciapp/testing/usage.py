"""What a run uses that the kernel does not limit for it: memory and disk of all its processes together.

In:  the processes of the tree, the folders on disk they may write to, and the memory file systems that only
     they see.
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
from collections.abc import Iterator, Sequence
from pathlib import Path

from ciapp.settings import Limits
from ciapp.testing.processes import proportional_bytes, resident_bytes

MIB = 1 << 20
WALK_EVERY_S = 1.0
WALK_SHARE = 0.05  #: of the time, at most, goes into walking
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
        self._disk_filled = _filled(folders)
        self._shared_memory = _shared_memory()
        self._walked_at = time.monotonic()
        self._pause_s = WALK_EVERY_S

    def breach(self, tree: Sequence[int], memory_folders: Sequence[str]) -> str:
        """Which limit is broken, as a sentence; empty when none is.

        `tree` are the run's processes; `memory_folders` the tmpfs mount points that only they write to.
        """
        limits = self._limits
        if len(tree) > limits.processes:
            return f"the run has {len(tree)} processes; {limits.processes} are allowed"
        memory_mib = self._memory(tree, memory_folders) // MIB
        if memory_mib > limits.memory_mib:
            return f"the run uses {memory_mib} MiB of memory; {limits.memory_mib} are allowed"
        disk_mib = self._disk(tree) // MIB
        if disk_mib > limits.disk_mib:
            return f"the run uses {disk_mib} MiB of disk; {limits.disk_mib} are allowed"
        return ""

    def _memory(self, tree: Sequence[int], memory_folders: Sequence[str]) -> int:
        files = sum(_tmpfs_bytes(folder) for folder in memory_folders)
        if _shared_memory() - self._shared_memory > self._limits.memory_mib * MIB // 8:
            # Anonymous files (memfd) are memory that no process has to map.
            files += sum(one.st_blocks * 512 for one in _unlinked(tree) if one.st_dev not in self._devices)
        used = files + sum(map(resident_bytes, tree))
        if used <= self._limits.memory_mib * MIB:
            return used
        return files + sum(map(proportional_bytes, tree))

    def _disk(self, tree: Sequence[int]) -> int:
        """Bytes in the folders; 0 while it is too early to look, or not worth it."""
        now = time.monotonic()
        since_s = now - self._walked_at
        if since_s < self._pause_s:
            return 0
        filled = _filled(self._folders)
        if filled - self._disk_filled < GROWTH_WORTH_A_WALK and since_s < WALK_AT_LEAST_EVERY_S:
            return 0
        used = sum(map(_folder_bytes, self._folders))
        used += sum(one.st_blocks * 512 for one in _unlinked(tree) if one.st_dev in self._devices)
        walk_s = time.monotonic() - now
        self._disk_filled, self._walked_at = filled, now + walk_s
        self._pause_s = max(WALK_EVERY_S, walk_s / WALK_SHARE)
        return used


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


def _folder_bytes(folder: Path) -> int:
    """Disk blocks of everything in a folder; a file with several names counts once for each."""
    used = 0
    waiting: list[str | Path] = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        used += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                    except OSError:
                        continue  # gone meanwhile
        except OSError:
            continue
    return used


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
