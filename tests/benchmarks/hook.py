"""What the hook adds to a `git push`: python -m tests.benchmarks.hook [--rounds N]

Each round pushes the same to a repository without a hook, to one with a hook that ends at once, to one with
ours while a dispatcher lives, and to one with ours where it has to start one, by turns; so all of them meet
the same noise. What a push does before its hook has a turn (nine tenths of a second for a thousand refs, and
20 ms more or less each time) is the same for all, and drowns what is to be measured. So the clock runs from
the moment when git comes to the hook, or would, by git's own trace, to the end of `git push`: it counts the
hook, how git feeds it and shows what it says, and what it leaves behind that slows the rest of the push down.
Printed are medians of the differences to the push without a hook of the same round. The target's refs are not
synced to disk; the hook's record is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from ciapp.intake.hook import install_hook
from ciapp.intake.presence import Presence
from tests.support.git_repositories import ENVIRONMENT, git

BUDGET_MS = 10.0
VARIANTS = ("no hook", "empty hook", "ours", "ours, starting a dispatcher")


@dataclass(frozen=True)
class Case:
    """One kind of push."""

    name: str
    refspec: str
    base: str  #: revision that the target has before; empty: none
    rounds: int


CASES = (
    Case("1 commit", "main~1:refs/heads/main", "main~2", 60),
    Case("1,000 refs", "refs/tags/*:refs/tags/*", "main", 24),
    Case("10,000 commits", "main:refs/heads/main", "", 24),
)


def main() -> None:
    """Measure and print; status 1 when a push to a living dispatcher is over the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each case instead of its own number")
    rounds = parser.parse_args().rounds
    over = False
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder))
        print(
            f"{'ms added to a push of':24} {VARIANTS[1]:>11} {VARIANTS[2]:>7} {'ratio':>6} {VARIANTS[3]:>28}"
        )
        for case in CASES:
            ends_ms = measure(case, source, Path(folder), rounds or case.rounds)
            empty, ours, starting = (added_ms(ends_ms[one], ends_ms["no hook"]) for one in VARIANTS[1:])
            print(f"{case.name:24} {empty:11.1f} {ours:7.1f} {ours / empty:6.1f} {starting:28.1f}")
            over = over or ours > BUDGET_MS
    print(f"budget: {BUDGET_MS:.0f} ms added by ours: {'MISSED' if over else 'kept'}")
    sys.exit(over)


def added_ms(mine: list[float], plain: list[float]) -> float:
    """The median of what each round's push took longer than the one without a hook."""
    return median(one - other for one, other in zip(mine, plain, strict=True))


def make_source(folder: Path) -> Path:
    """A repository with 10,000 commits on main and 1,000 tags."""
    source = folder / "source.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(source))
    commits = [
        f"commit refs/heads/main\ncommitter Ann <ann@example.org> {1_000_000 + number} +0000\ndata 1\nx\n"
        f"M 100644 inline file\ndata <<END\n{number}\nEND\n"
        for number in range(10_000)
    ]
    git(source, "fast-import", "--quiet", stdin="".join(commits))
    tags = "".join(f"create refs/tags/{number} refs/heads/main~{number}\n" for number in range(1000))
    git(source, "update-ref", "--stdin", stdin=tags)
    git(source, "gc", "--quiet")
    return source


def measure(case: Case, source: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """How long the end of each push took, in ms, by variant; the rounds stand in the same order."""
    ends_ms: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    template = folder / "template.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(template))
    git(template, "config", "core.fsync", "none")
    if case.base:
        git(source, "push", "--quiet", str(template), f"{case.base}:refs/heads/main")
    for number in range(rounds):
        # Each variant is first, second, … equally often.
        for variant in VARIANTS[number % len(VARIANTS) :] + VARIANTS[: number % len(VARIANTS)]:
            target = folder / "team.git"
            shutil.copytree(template, target)
            let_go = PREPARE[variant](target)
            os.sync()
            ends_ms[variant].append(push(source, target, case.refspec))
            let_go()
            shutil.rmtree(target)
    shutil.rmtree(template)
    return ends_ms


def push(source: Path, target: Path, refspec: str) -> float:
    """Push, and tell how many ms it took from where git comes to the hook."""
    trace = target / "trace"
    subprocess.run(
        ["git", "push", "--quiet", str(target), refspec],
        cwd=source,
        env={**ENVIRONMENT, "GIT_TRACE2_EVENT": str(trace)},
        check=True,
        stderr=subprocess.DEVNULL,
    )
    ended_s = time.time()
    return 1000 * (ended_s - hook_began_s(trace))


def hook_began_s(trace: Path) -> float:
    """When git started the post-receive hook; without one, what it starts next, which is its maintenance."""
    began_s = [
        datetime.fromisoformat(event["time"]).timestamp()
        for event in map(json.loads, trace.read_text().splitlines())
        if event["event"] == "child_start"
        and (event.get("hook_name") == "post-receive" or {"gc", "maintenance"}.intersection(event["argv"]))
    ]
    return min(began_s)


def _nothing(_target: Path) -> Callable[[], None]:
    return lambda: None


def _empty_hook(target: Path) -> Callable[[], None]:
    hook = target / "hooks" / "post-receive"
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    return lambda: None


def _ours(target: Path) -> Callable[[], None]:
    install_hook(target, name="team", command=["/bin/true"], config=None, state_dir=None)
    presence = Presence()
    presence.announce(target)
    return presence.close


def _ours_starting(target: Path) -> Callable[[], None]:
    command = target / "ciapp-command"
    command.write_text('#!/bin/sh\n: >"$0.started"\n')
    command.chmod(0o755)
    install_hook(target, name="team", command=[str(command)], config=None, state_dir=None)

    def wait_for_command() -> None:
        while not (target / "ciapp-command.started").exists():
            time.sleep(0.005)

    return wait_for_command


PREPARE: dict[str, Callable[[Path], Callable[[], None]]] = dict(
    zip(VARIANTS, (_nothing, _empty_hook, _ours, _ours_starting), strict=True)
)

if __name__ == "__main__":
    main()
