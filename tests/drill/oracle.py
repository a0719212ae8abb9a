"""The verdicts of a plan's commits by plain means: one tree after the other, one process, unittest alone.

In:  the source repository, and the commits.
Out: number → status and outcomes; an AssertionError where the plan had promised something else, which is a
     fault of the drill, not of ciapp.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from ciapp.results.report import Outcome, Status
from ciapp.testing.environment import default_python
from tests.drill.history import SOURCE
from tests.drill.projects import HANG_LIMIT_S, Project
from tests.support.installation import Installation

PLAIN = Path(__file__).parent / "plain.py"
WITHIN_S = 120.0  #: until the first test starts
LOOK_EVERY_S = 0.01


class Verdict(msgspec.Struct, frozen=True):
    """What testing a commit finds."""

    status: Status
    outcomes: dict[str, Outcome]


class Oracle:
    """Finds the verdicts, in a thread of its own while ciapp does."""

    def __init__(self, ci: Installation, projects: Mapping[int, Project], commits: Mapping[int, str]) -> None:
        self._ci = ci
        self._projects = projects
        self._commits = commits
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._verdicts = self._pool.submit(self._run_all)

    def verdicts(self) -> dict[str, Verdict]:
        """Commit id → verdict; waits for the last one."""
        return self._verdicts.result()

    def close(self) -> None:
        """Stop after the project that is being run."""
        self._closing.set()
        self._pool.shutdown()

    def _run_all(self) -> dict[str, Verdict]:
        known: dict[int, Verdict] = {}  # each distinct project is run once
        for number, project in self._projects.items():
            if self._closing.is_set():
                return {}
            if project.number not in known:
                known[project.number] = _run(self._ci, project, self._commits[number])
        return {self._commits[number]: known[one.number] for number, one in self._projects.items()}


def _run(ci: Installation, project: Project, commit: str) -> Verdict:
    checkout = ci.folder / "oracle"
    checkout.mkdir()
    try:
        archive = subprocess.run(
            ["git", "archive", commit],
            cwd=ci.folder / SOURCE,
            env=ci.environment,
            capture_output=True,
            check=True,
        ).stdout
        subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive, check=True)
        # unittest knows nothing of .ciapp.toml: what it forbids is known by construction alone.
        outcomes = {} if project.kind == "misconfigured" else _outcomes(checkout, project)
    finally:
        shutil.rmtree(checkout)
    if outcomes != project.outcomes:
        raise AssertionError(f"plan and oracle differ on {commit}: {project.outcomes} and {outcomes}")
    return Verdict(project.status, outcomes)


def _outcomes(checkout: Path, project: Project) -> dict[str, Outcome]:
    """Run the tests; after a crash or a hang the rest in a new process."""
    start = checkout / "tests" if (checkout / "tests").is_dir() else checkout
    lines = checkout.with_suffix(".lines")
    found: dict[str, Outcome] = {}
    try:
        while True:
            lines.write_text("")
            hung = _start(checkout, start, lines, list(found))
            events = [json.loads(line) for line in lines.read_text().splitlines()]
            found |= {event["end"]: Outcome(event["outcome"]) for event in events if "end" in event}
            if events and "all" in events[-1]:
                return found
            if not events or "start" not in events[-1]:
                raise AssertionError(f"unittest does not get to a test of {project}")
            found[events[-1]["start"]] = Outcome.TIMED_OUT if hung else Outcome.CRASHED
    finally:
        lines.unlink()


def _start(checkout: Path, start: Path, lines: Path, done: list[str]) -> bool:
    """Run `plain.py` to its end; whether it had to be ended, because a test took too long."""
    process = subprocess.Popen(
        [str(default_python().python), "-I", "-B", str(PLAIN), str(start), str(lines), *done],
        cwd=checkout,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen, since_s = 0, time.monotonic()
    try:
        while process.poll() is None:
            if lines.stat().st_size != seen:
                seen, since_s = lines.stat().st_size, time.monotonic()
            if time.monotonic() - since_s > (HANG_LIMIT_S if seen else WITHIN_S):
                return True
            time.sleep(LOOK_EVERY_S)
        return False
    finally:
        process.kill()
        process.wait()
