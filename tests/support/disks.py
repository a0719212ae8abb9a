"""Small disks of a test's own, to be filled to the last byte and emptied again. Needs root and mount."""

from __future__ import annotations

import os
import subprocess
import unittest
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.services import need

PIECES = (2**20, 4096, 1)


class SmallDisk:
    """A file system of its own, in a folder that is empty or new; gone after the test."""

    def __init__(self, test: unittest.TestCase, folder: Path, size_mib: int, mode: int = 0o755) -> None:
        if os.geteuid() != 0:
            raise unittest.SkipTest("small disks are mounted, which root alone may do")
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={size_mib}m,mode={mode:o}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            need("mount", done.stderr.decode())
        # Lazily: who uses it is killed after that.
        test.addCleanup(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        self.folder = folder
        self._ballast = folder / ".ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        """A block in which nothing more can be written here."""
        self.fill()
        try:
            yield
        finally:
            self._ballast.unlink()

    def fill(self) -> None:
        """Take what room there is, also what was freed since."""
        with self._ballast.open("ab", buffering=0) as file:
            for piece in PIECES:
                with suppress(OSError):
                    while file.write(bytes(piece)) == piece:
                        pass
