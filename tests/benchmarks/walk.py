"""What ciapp costs beside a shell loop that checks out and runs `python3 -m unittest discover`.

    python -m tests.benchmarks.walk [--commits 50] [--rounds 3] [--files 0] [--slots 2]

(b) from the end of a push to its stored report, on an idle system, against the loop's time for one commit;
(c) commits per second, and CPU seconds per commit, for a push of many one-file commits with 20 quick tests,
    against two loops in parallel, each with a warm worktree of its own;
(d) the same with `--files 5000`: a tree of so many files (60 MB), three of them changed by each commit.

ciapp's CPU seconds are those of a control group of its own where root can make one; without, those of
processes that somebody waited for, which misses what dies with a sandbox's pid namespace.

Reference and ciapp take turns in the same minutes, and every figure is a ratio of a pair. That every commit
was really tested is not asked of ciapp alone: a test prints the number that its commit holds, and the number
must stand in that commit's report.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
import unittest
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sqlalchemy import func, select

from ciapp.results import schema
from ciapp.results.report import State, Status
from ciapp.results.runs import Run, find_runs
from ciapp.results.store import load_report
from ciapp.testing.environment import default_python
from tests.support.installation import Installation

QUICK_TESTS = 20
TICKS = os.sysconf("SC_CLK_TCK")
LOOP = """
set -e
cd "$1"; shift
python=$1; shift
for commit; do
    git checkout --quiet --detach "$commit"
    "$python" -m unittest discover -s tests >/dev/null 2>&1
done
"""


def test_module(number: int) -> str:
    """A test module that tells its commit's number, with quick tests around it."""
    lines = ["import unittest", "", f"NUMBER = {number}", "", "", "class TestQuick(unittest.TestCase):"]
    lines += ["    def test_number(self):", "        print('number', NUMBER)", ""]
    for index in range(QUICK_TESTS - 1):
        lines += [f"    def test_{index:02}(self):", f"        self.assertEqual({index}, {index})", ""]
    return "\n".join(lines)


class ControlGroup:
    """Counts the CPU time of processes, and of whatever they start."""

    def __init__(self, folder: Path, usage: str, unit_s: float) -> None:
        """Raises OSError where there is no such control group, or none may be made."""
        self._usage = folder / usage
        self._unit_s = unit_s
        self.folder = folder
        if not folder.parent.joinpath("cgroup.procs").exists():
            raise FileNotFoundError(folder.parent)
        folder.mkdir()

    def add(self, pids: Iterable[int]) -> None:
        for pid in pids:
            (self.folder / "cgroup.procs").write_text(str(pid))

    def cpu_s(self) -> float:
        return int(self._usage.read_text().removeprefix("usage_usec").split()[0]) * self._unit_s


def family(pids: list[int]) -> set[int]:
    """These processes and all that descend from them."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
    found, size = set(pids), 0
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def make_group() -> ControlGroup | None:
    """A control group of version 1 or 2; None where none can be had."""
    name = f"ciapp-{os.getpid()}"
    root = Path("/sys/fs/cgroup")
    with suppress(OSError):
        return ControlGroup(root / "cpuacct" / name, "cpuacct.usage", 1e-9)
    with suppress(OSError):
        return ControlGroup(root / name, "cpu.stat", 1e-6)
    return None


class Bench:
    """One ciapp and one shell loop over the same history."""

    def __init__(self, holder: unittest.TestCase, slots: int, files: int) -> None:
        self.slots = slots
        self.ci = Installation(holder)
        self.clone = self.ci.make_repository()
        self.python = default_python().python
        self.number = 0
        self.tested = 0
        self.files = [f"data/{index % 50}/{index}.txt" for index in range(files)]
        if files:
            noise = random.Random(7)
            for name in self.files:
                path = self.clone / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(noise.randbytes(12000))
        self.first = self.commit()
        self.loops = [self.ci.folder / f"loop{index}" for index in range(slots)]
        for loop in self.loops:
            self.ci.git("worktree", "add", "--quiet", "--detach", str(loop), cwd=self.clone)
        self.group = make_group()
        if self.group is not None:
            holder.addCleanup(self.group.folder.rmdir)
        self.ci.start_all(slots)
        if self.group is not None:
            self.group.add(family([process.pid for process in self.ci.processes]))
        self.push([self.first])
        self.shell([[self.first]] * slots)

    def commit(self) -> str:
        """A commit with the next number; in a large tree it changes two files more."""
        self.number += 1
        changes = {"tests/test_quick.py": test_module(self.number)}
        for step in (1, 2):
            if self.files:
                changes[self.files[(self.number * 2 + step) % len(self.files)]] = f"{self.number}\n" * 2000
        return self.ci.commit(self.clone, changes)

    def shell(self, shares: list[list[str]]) -> tuple[float, float]:
        """Wall and CPU seconds of the loops, one per share of commits."""
        before, started = os.times(), time.monotonic()
        # As in a shell: without what this process was told about byte-code and buffers.
        environment = {
            name: value for name, value in self.ci.environment.items() if not name.startswith("PYTHON")
        }
        loops = [
            subprocess.Popen(["sh", "-c", LOOP, "sh", str(folder), str(self.python), *share], env=environment)
            for folder, share in zip(self.loops, shares, strict=False)
        ]
        codes = [loop.wait() for loop in loops]
        assert not any(codes), codes
        after = os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        return time.monotonic() - started, cpu_s

    def push(self, commits: list[str]) -> tuple[float, float, float]:
        """Seconds from the start of the push to the last report, the same from its end, and CPU seconds."""
        cpu_s, started = self.cpu_s(), time.monotonic()
        self.ci.push(self.clone)
        pushed = time.monotonic()
        runs = self.finish(commits)
        now, used_s = time.monotonic(), self.cpu_s() - cpu_s
        self.check(runs)
        return now - started, now - pushed, used_s

    def finish(self, commits: list[str]) -> list[Run]:
        """Wait until all are tested, with a look that takes next to nothing from what is measured."""
        self.tested += len(commits)
        finished = select(func.count()).where(schema.runs.c.state == State.FINISHED)
        while True:
            with self.ci.database.read() as connection:
                if connection.scalar(finished) == self.tested:
                    break
            time.sleep(0.005 if len(commits) == 1 else 0.05)
        runs = find_runs(self.ci.database, "team", commits)
        assert len(runs) == len(commits), runs
        return runs

    def check(self, runs: list[Run]) -> None:
        """See that each was really tested."""
        for run in runs:
            database = self.ci.database
            report = load_report(database, run.id)
            assert report is not None, run
            assert report.status is Status.PASSED, (report.reason, self.ci.logs())
            [told] = [test.stdout for test in report.tests if test.id.endswith("test_number")]
            text = self.ci.git("show", f"{run.commit}:tests/test_quick.py", cwd=self.clone)
            assert f"NUMBER = {told.split()[1]}\n" in text, (told, run.commit)

    def cpu_s(self) -> float:
        """CPU seconds used by ciapp's processes until now, with those of their children that have ended."""
        if self.group is not None:
            return self.group.cpu_s()
        leaders = {process.pid for process in self.ci.processes}
        total = 0.0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if int(fields[3]) in leaders:
                total += sum(map(int, fields[11:15])) / TICKS
        return total


def show(name: str, ratios: list[float], goal: str) -> None:
    """One line per figure."""
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    print(f"{name:58} median {middle:.2f}  min {least:.2f}  max {most:.2f}  goal {goal}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commits", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--slots", type=int, default=2)
    options = parser.parse_args()
    holder = unittest.TestCase()
    try:
        bench = Bench(holder, options.slots, options.files)
        single, seconds = [], []
        for _ in range(10):
            commit = bench.commit()
            loop_s, _ = bench.shell([[commit]])
            _, report_s, _ = bench.push([commit])
            single.append(report_s / loop_s)
            seconds.append(report_s)
        print(f"push returned → report stored: median {statistics.median(seconds):.3f} s")
        show("(b) push → report, × the loop's time for one commit", single, "< 5")
        rates, cpus = [], []
        for _ in range(options.rounds):
            commits = [bench.commit() for _ in range(options.commits)]
            loop_s, loop_cpu_s = bench.shell(
                [commits[slot :: options.slots] for slot in range(options.slots)]
            )
            ours_s, _, ours_cpu_s = bench.push(commits)
            rates.append(loop_s / ours_s)
            cpus.append(ours_cpu_s / loop_cpu_s)
            print(
                f"  loop {loop_s:.2f} s, {loop_cpu_s:.2f} CPU s; ciapp {ours_s:.2f} s, {ours_cpu_s:.2f} CPU s"
            )
        figure = "(d)" if options.files else "(c)"
        show(f"{figure} commits per second, × the loop", rates, "≥ 0.6")
        show(f"{figure} CPU per commit, × the loop", cpus, "≤ 1.6")
    finally:
        holder.doCleanups()


if __name__ == "__main__":
    sys.exit(main())
