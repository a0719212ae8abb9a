"""What a commit's tests run with: an interpreter, and what belongs to it."""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path

import msgspec


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """A Python that tests can run under."""

    python: Path  #: the program itself, no shim and no link: a shim costs more than Python's own start
    version: str  #: "3.11.7"
    readable: tuple[Path, ...]  #: folders that it needs


@cache
def default_python() -> Interpreter:
    """The worker's own Python, without what is installed beside ciapp."""
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefixes = dict.fromkeys(Path(prefix).resolve() for prefix in (sys.base_prefix, sys.base_exec_prefix))
    return Interpreter(python=python, version=platform.python_version(), readable=tuple(prefixes))
