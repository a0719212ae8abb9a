"""Run a drill, and print what came of it. Exit code 0: it held; 1: it did not."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import statistics
import sys
import time
import unittest
from collections import Counter
from contextlib import suppress
from types import FrameType

import msgspec

from tests.drill.brokers import open_broker
from tests.drill.collecting import Collecting
from tests.drill.complaints import find_complaints
from tests.drill.damaging import Damaging
from tests.drill.databases import open_backend
from tests.drill.history import make_history
from tests.drill.hosts import Hosts
from tests.drill.judgement import Judged, judge_end, judge_idle, judge_ledger, judge_pushes, survivors
from tests.drill.lanes import Lanes
from tests.drill.oracle import Oracle
from tests.drill.plan import make_plan
from tests.drill.pushing import Pushers, PushSample
from tests.drill.stage import Stage
from tests.drill.striking import Striking
from tests.drill.terminals import Terminals
from tests.drill.updating import Updating, find_older

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 90.0  #: without a run that finishes, before those that are left count as lost


class Result(msgspec.Struct):
    """What a drill came to."""

    commits: int
    judged: Judged
    samples: list[PushSample]
    struck: Counter[str]
    missed: Counter[str]
    seconds: float

    @property
    def violations(self) -> list[str]:
        """Why it did not hold; empty when it did."""
        return self.judged.violations

    def table(self) -> str:
        """For people to read."""
        took_s = [sample.took_s for sample in self.samples]
        twin_s = [sample.twin_s for sample in self.samples]
        rows = [
            ("commits", str(self.commits)),
            ("runs", str(self.judged.runs)),
            ("attempts", str(self.judged.attempts)),
            ("lost attempts", str(self.judged.lost.total())),
            *((f"  {reason}", str(count)) for reason, count in self.judged.lost.most_common()),
            ("faults", str(self.struck.total())),
            *((f"  {kind}", str(count)) for kind, count in sorted(self.struck.items())),
            *((f"  {kind}, held back", str(count)) for kind, count in sorted(self.missed.items())),
            ("pushes", str(len(took_s))),
            *(
                (f"  {name}: median, worst", f"{statistics.median(times):.3f} s, {max(times):.3f} s")
                for name, times in (("with the hook", took_s), ("without", twin_s))
                if times
            ),
            ("seconds", f"{self.seconds:.0f}"),
            ("violations", str(len(self.violations))),
        ]
        return "\n".join([*(f"{name:<74} {value:>18}" for name, value in rows), *self.violations])


def drill(holder: unittest.TestCase, options: argparse.Namespace) -> Result:
    """A drill from its first push to its last process; `holder` ends what it started."""
    started_s = time.monotonic()
    hosts = Hosts(holder, options.hosts) if options.hosts else None
    broker = open_broker(holder, options.broker, hosts.broker if hosts else None)
    backend = open_backend(holder, options.backend, hosts.database if hosts else None)
    if hosts:
        hosts.join()
    older = find_older(holder)  # which goes after whatever runs of it
    stage = Stage(holder, broker, backend, hosts)
    stage.ci.is_kept = options.keep
    striking, collecting = Striking(stage), Collecting(stage)
    terminals = Terminals(stage, collecting)
    updating = Updating(stage, striking, older)
    strikes = {
        "processes": striking.processes,
        "services": striking.services,
        "machine": striking.machine,
        "network": striking.network,
        "terminals": terminals.strikes,
        "repository": collecting.strikes,
        "damage": Damaging(stage).strikes,
        "update": updating.strikes,
    }
    kinds = {lane: sorted(found) for lane, found in strikes.items() if found}
    plan = make_plan(options.seed, options.commits, options.clones, kinds, options.faults)
    projects = plan.expected()
    commits = make_history(stage.ci, plan)
    if plan.lanes.get("update"):
        updating.begin()
    stage.prepare()
    if not updating.strikes:
        say("no older ciapp begins: the history of this project is not here, or has none")
    say(f"{len(projects)} commits, {len(plan.pushes)} pushes; logs in {stage.ci.folder}")
    oracle = Oracle(stage.ci, projects, commits)
    holder.addCleanup(oracle.close)
    pushers = Pushers(stage, plan, commits)
    lanes = Lanes(stage, plan.lanes, strikes)
    stage.open([commits[number] for number in projects])
    lanes.start()
    pushers.start(lanes.share_begun)
    try:
        _wait_for_all(stage, pushers, lanes, len(projects))
    finally:
        updating.end()
        lanes.close()
    terminals.settle()
    _wait_for_all(stage, pushers, lanes, len(projects))
    violations = judge_idle(stage)
    stage.close()
    judged = judge_ledger(stage, oracle.verdicts(), terminals)
    judged.violations += judge_pushes(pushers.samples) + violations
    judged.violations += judge_end(stage) + terminals.judge_backups() + stage.violations
    judged.violations += find_complaints(stage.logs())
    for note in stage.notes:
        say(note)
    if judged.violations:
        say(stage.ci.logs())
    struck = lanes.struck + Counter({"hook killed": pushers.hooks_killed})
    return Result(len(projects), judged, pushers.samples, struck, lanes.missed, time.monotonic() - started_s)


def _wait_for_all(stage: Stage, pushers: Pushers, lanes: Lanes, wanted: int) -> None:
    """Until all is pushed, struck and finished, or nothing has finished for a long time."""
    progress, since_s = (0, 0), time.monotonic()
    while True:
        seen = stage.seen
        if pushers.are_busy() or lanes.are_busy() or seen.progress != progress:
            if seen.progress != progress:
                say(f"{seen.finished} of {wanted} runs finished", end="\r")
            progress, since_s = seen.progress, time.monotonic()
        elif seen.finished == wanted or time.monotonic() - since_s > PATIENCE_S:
            return
        time.sleep(0.1)


def say(sentence: str, end: str = "\n") -> None:
    """Tell who waits."""
    print(sentence, end=end, file=sys.stderr, flush=True)


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--commits", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clones", type=int, default=3)
    parser.add_argument("--broker", default="embedded", help="embedded, redis, rabbitmq, or a URL")
    parser.add_argument("--backend", default="sqlite", help="sqlite, postgresql, or a URL")
    parser.add_argument(
        "--faults", type=float, default=1.0, help="how many, 1 being the usual number; 0: none"
    )
    parser.add_argument(
        "--hosts", type=int, default=0, help="of workers, in a network with git host, broker and database"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder, with logs and ledger")
    options = parser.parse_args(arguments)
    if options.hosts and (options.broker == "embedded" or options.backend == "sqlite"):
        parser.error("--hosts takes a broker and a database that many hosts can reach")
    return options


def main() -> int:
    """Drill."""
    options = read_options()
    # Orphans fall to us, so that nothing which was started here can hide.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, _leave)
    holder = unittest.TestCase()
    try:
        result = drill(holder, options)
    except KeyboardInterrupt:
        say("the drill was ended; nothing is judged")
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        holder.doCleanups()
        end_survivors()
    print(result.table())
    return 1 if result.violations else 0


def end_survivors() -> None:
    """End whatever is left of what the drill started."""
    while left := survivors(set()):
        for pid, _ in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
