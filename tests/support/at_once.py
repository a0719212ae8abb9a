"""Commands of ciapp given in several terminals at the same moment.

    python -m tests.support.at_once COMMAND … ++ COMMAND … ++ …

Each is a process of its own, forked from this one to save it the imports, and held until all are ready. What
each ended with and printed is printed as one JSON list.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.installation import Installation

BETWEEN = "++"


class Said(NamedTuple):
    """How a command ended."""

    code: int
    text: str  #: both streams


def at_once(ci: Installation, *commands: Sequence[str]) -> list[Said]:
    """Run these commands of ciapp at once."""
    words = [word for command in commands for word in (*command, BETWEEN)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.at_once", *words[:-1]],
        env=ci.environment,
        cwd=ci.folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr.decode(errors="replace"))
    return [Said(code, text) for code, text in json.loads(done.stdout)]


def main() -> None:
    """Fork a process for each command, let them go, and tell how they ended."""
    importlib.import_module("ciapp.cli")
    importlib.import_module("ciapp.intake.register")
    commands, outputs = _split(sys.argv[1:]), []
    gate, opening = os.pipe()
    for words in commands:
        output = os.memfd_create("output")
        pid = os.fork()
        if pid == 0:
            os.close(opening)
            _run(words, gate, output)
        outputs.append((pid, output))
    os.close(opening)  # they are all let go by this
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in outputs]
    said = [Path(f"/proc/self/fd/{output}").read_text() for _, output in outputs]
    print(json.dumps(list(zip(ended, said, strict=True))))


def _run(words: Sequence[str], gate: int, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.read(gate, 1)
    sys.argv = ["ciapp", *words]
    code = 0
    try:
        importlib.import_module("ciapp.cli").main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _split(words: Sequence[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word == BETWEEN:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


if __name__ == "__main__":
    main()
