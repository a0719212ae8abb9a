"""A command of ciapp that is killed (kill -9, by its own hand) at one exact step, and at the next one …

    python -m tests.support.killed_at STEP[,STEP …] COMMAND …

A step is "before MODULE:NAME[.NAME]" or "after …": around the first call of that function. Each of the steps
must be reached, by a process of its own that is forked from this one to save it the imports.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tests.support.installation import Installation


def run_killed_at(ci: Installation, steps: Sequence[str], *words: str) -> None:
    """Run a command once for each of these steps; each time it must die there."""
    command = [sys.executable, "-m", "tests.support.killed_at", ",".join(steps), *words]
    done = subprocess.run(command, env=ci.environment, cwd=ci.folder, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError((done.stdout + done.stderr).decode(errors="replace"))


def main() -> None:
    """Run the command line of a child for each step, and see that it is killed."""
    steps, *words = sys.argv[1:]
    for step in steps.split(","):
        importlib.import_module(_module(step))
        importlib.import_module("ciapp.intake.serve")
        child = os.fork()
        if child == 0:
            _die_at(step, words)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            sys.exit(f"not killed {step}, but ended with {status}")


def _module(step: str) -> str:
    return step.partition(" ")[2].partition(":")[0]


def _die_at(step: str, words: Sequence[str]) -> NoReturn:
    when, _, where = step.partition(" ")
    holder: Any = sys.modules[_module(step)]
    *outer, name = where.partition(":")[2].split(".")
    for each in outer:
        holder = getattr(holder, each)
    original = getattr(holder, name)

    @functools.wraps(original)
    def killed(*args: Any, **options: Any) -> None:
        if when == "after":
            original(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(holder, name, killed)
    try:
        from ciapp.cli import main as ciapp

        sys.argv = ["ciapp", *words]
        ciapp()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
