"""Room on the disks of this host: without it, what a run finds says nothing about its commit.

In:  the folders that a run writes to.
Out: a sentence once one of them is full; empty as long as none is.
"""

from __future__ import annotations

import os
from pathlib import Path

NEEDED_MIB = 8  #: what tests leave free when it was not the disk that stopped them, with a margin
NEEDED_FILES = 100


class Room:
    """What room some folders have, and had since this began."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self.was_short = ""  #: the first folder that was seen full, in a sentence

    def look(self) -> str:
        """Which folder is full now, in a sentence; costs microseconds."""
        for folder in self._folders:
            facts = os.statvfs(folder)
            if facts.f_bavail * facts.f_frsize < NEEDED_MIB * 2**20:
                said = f"the disk of {folder} is full"
            elif facts.f_files and facts.f_favail < NEEDED_FILES:
                said = f"the disk of {folder} takes no more files"
            else:
                continue
            self.was_short = self.was_short or said
            return said
        return ""
