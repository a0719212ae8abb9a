"""What the hook adds to a `git push`: python -m tests.benchmarks.hook [--rounds N]

Each round pushes the same to a repository without a hook, to one with a hook that ends at once, to one with
ours while a dispatcher lives, and to one with ours where it has to start one, by turns; so all of them meet
the same noise. Printed are medians of the differences to the push without a hook of the same round, in wall
and in processor time (which a busy machine disturbs less). The target's refs are not synced to disk: a
thousand of those would drown what is to be measured. The hook's record is.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ciapp.intake.hook import install_hook
from ciapp.intake.presence import Presence
from tests.support.git_repositories import ENVIRONMENT, git

BUDGET_MS = 10.0
VARIANTS = ("no hook", "empty hook", "ours", "ours, starting a dispatcher")


@dataclass(frozen=True)
class Cost:
    """What a push cost, or cost more."""

    wall_ms: float
    cpu_ms: float  #: of git, and of all it waited for

    def __str__(self) -> str:
        return f"{self.wall_ms:+.1f} / {self.cpu_ms:+.1f}"


@dataclass(frozen=True)
class Case:
    """One kind of push."""

    name: str
    refspec: str
    base: str  #: revision that the target has before; empty: none
    rounds: int


CASES = (
    Case("1 commit", "main~1:refs/heads/main", "main~2", 60),
    Case("1,000 refs", "refs/tags/*:refs/tags/*", "main", 20),
    Case("10,000 commits", "main:refs/heads/main", "", 20),
)


def main() -> None:
    """Measure and print; status 1 when a push to a living dispatcher is over the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each case instead of its own number")
    rounds = parser.parse_args().rounds
    over = False
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder))
        titles = ("empty hook", "ours", "ratio", "starting")
        print(
            f"{'ms added to a push of':24} {'(without)':>10} {{:>14}} {{:>14}} {{:>7}} {{:>14}}".format(
                *titles
            )
        )
        for case in CASES:
            costs = measure(case, source, Path(folder), rounds or case.rounds)
            empty, ours, starting = (added(costs[variant], costs["no hook"]) for variant in VARIANTS[1:])
            plain = median(cost.wall_ms for cost in costs["no hook"])
            ratio = f"x {ours.cpu_ms / empty.cpu_ms:.1f}" if empty.cpu_ms > 0 else "-"
            print(f"{case.name:24} {plain:10.1f} {empty!s:>14} {ours!s:>14} {ratio:>7} {starting!s:>14}")
            over = over or ours.wall_ms > BUDGET_MS
    print("wall / processor time; the ratio is of processor time, to the empty hook")
    print(f"budget: {BUDGET_MS:.0f} ms of wall time added by ours: {'MISSED' if over else 'kept'}")
    sys.exit(over)


def added(mine: list[Cost], plain: list[Cost]) -> Cost:
    """Medians of what each round's push cost more than the one without a hook."""
    pairs = list(zip(mine, plain, strict=True))
    return Cost(
        wall_ms=median(one.wall_ms - other.wall_ms for one, other in pairs),
        cpu_ms=median(one.cpu_ms - other.cpu_ms for one, other in pairs),
    )


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


def measure(case: Case, source: Path, folder: Path, rounds: int) -> dict[str, list[Cost]]:
    """What each push cost, by variant; the rounds stand in the same order."""
    costs: dict[str, list[Cost]] = {variant: [] for variant in VARIANTS}
    template = folder / "template.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(template))
    git(template, "config", "core.fsync", "none")
    if case.base:
        git(source, "push", "--quiet", str(template), f"{case.base}:refs/heads/main")
    for number in range(rounds):
        # Each variant is first, second, … equally often.
        for variant in VARIANTS[number % 4 :] + VARIANTS[: number % 4]:
            target = folder / "team.git"
            shutil.copytree(template, target)
            let_go = PREPARE[variant](target)
            os.sync()
            costs[variant].append(push(source, target, case.refspec))
            let_go()
            shutil.rmtree(target)
    shutil.rmtree(template)
    return costs


def push(source: Path, target: Path, refspec: str) -> Cost:
    """Push, and tell what it cost."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        ["git", "push", "--quiet", str(target), refspec],
        cwd=source,
        env=ENVIRONMENT,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    wall_s = time.perf_counter() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(1000 * wall_s, 1000 * (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime))


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
