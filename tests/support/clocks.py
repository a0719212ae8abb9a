"""A clock of a test's own for the processes that it starts, to be set back while they run.

What they see shifted is the time of day; the monotonic clock and the times of files are the kernel's. It
takes a C compiler.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from tests.support.services import need

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """What the processes with `environment` take for the time of day."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            need("cc", "the library that shifts a clock is compiled")
        library = folder / "clock.so"
        build = [compiler, "-shared", "-fPIC", "-nostdlib", "-O1", "-o", str(library), str(SOURCE)]
        subprocess.run(build, check=True)
        self._file = folder / "clock"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Set it to so many seconds before (negative) or after the right time, for all who run as well."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:  # they have it mapped
            file.write(struct.pack("@q", seconds))
