"""What the child costs beside plain unittest: `python -m tests.benchmarks.child_overhead`.

Two suites, each run through `run_suite` and through `python -m unittest discover` in turn, so that both meet
the same minutes of the machine: 2,000 empty tests for wall time, 20 quick ones for processor time. The best
of all rounds counts: everything else is the machine's.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ciapp.results.report import Status
from tests.support.samples import run_project

ROUNDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    for number, name in ((2000, "empty tests"), (20, "quick tests")):
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder)
            write_project(project, number)
            measure(f"{number} {name}", project, number, options.python, options.rounds)


def write_project(project: Path, number: int) -> None:
    """A project of so many tests, 20 to a class and 100 to a module."""
    (project / "tests").mkdir()
    for module in range(-(-number // 100)):
        lines = ["import unittest"]
        for test in range(min(100, number)):
            if test % 20 == 0:
                lines.append(f"class Test{test // 20}(unittest.TestCase):")
            lines.append(f"    def test_{test}(self): pass")
        (project / "tests" / f"test_{module}.py").write_text("\n".join(lines) + "\n")


def measure(name: str, project: Path, number: int, python: Path, rounds: int) -> None:
    """Print both sides and their ratios."""

    def through_child() -> None:
        findings = run_project(project, python)
        assert findings.status is Status.PASSED, findings
        assert len(findings.tests) == number

    def through_unittest() -> None:
        command = [python, "-m", "unittest", "discover", "-s", "tests"]
        subprocess.run(command, cwd=project, check=True, capture_output=True)

    ours, plain = [], []
    for _ in range(rounds):
        ours.append(cost(through_child))
        plain.append(cost(through_unittest))
    for index, kind in enumerate(("wall", "processor, parent's share included", "processor, children alone")):
        mine, theirs = (min(costs[index] for costs in side) for side in (ours, plain))
        print(
            f"{name}: {kind}: {mine * 1000:.1f} ms against {theirs * 1000:.1f} ms, ratio {mine / theirs:.2f}"
        )


def cost(run: Callable[[], None]) -> tuple[float, float, float]:
    """Wall and processor time in seconds, the latter with and without this process's own."""
    before, started = processor_time(), time.perf_counter()
    run()
    wall = time.perf_counter() - started
    own, children = (now - then for now, then in zip(processor_time(), before, strict=True))
    return wall, own + children, children


def processor_time() -> tuple[float, float]:
    """Of this process, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return used[0].ru_utime + used[0].ru_stime, used[1].ru_utime + used[1].ru_stime


if __name__ == "__main__":
    main()
