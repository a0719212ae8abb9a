"""Whether a drill held: the ledger against the oracle, and nothing left over.

In:  the stage, what the oracle says, the pushes.
Out: violations, a sentence each; none when all is well.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from sqlalchemy import func, select

from ciapp.results import schema
from ciapp.results.attempts import REPORTED, Attempt
from ciapp.results.report import Outcome, Report, Status
from ciapp.results.runs import Run
from ciapp.testing.processes import list_tree
from tests.drill.evidence import Evidence, gather
from tests.drill.oracle import Verdict
from tests.drill.pushing import PushSample
from tests.drill.stage import Stage
from tests.drill.terminals import Asked, Terminals

PUSH_COSTS_AT_MOST_S = 1.0
#: How long a push takes with the hook by what it takes without: 27 ms by 17, when the hook was made. So it
#: is what a hook that does as much takes on a machine so loaded, however long this one took.
HOOK_SHARE = 1.6
NEIGHBOURS_S = 10.0  #: twins of pushes so near say how loaded the machine was
OLD_S = 2 * 3600.0
UNFINISHED = (".lock", ".new", ".old", ".part", ".draft", ".keep")
LOCKS_STAY = ("mirrors", "broker", "workers")  #: in these folders: whoever needs one locks the file
NAME_SERVER = "/epmd -daemon"  #: of RabbitMQ, which starts it and leaves it behind
CANCELLED = "cancelled"  #: the ending of an attempt that was under way then
SHOWN = 3  #: differences of one report, and files of one kind


class Judged(msgspec.Struct):
    """What was found in the ledger."""

    violations: list[str]
    runs: int = 0
    attempts: int = 0
    lost: Counter[str] = msgspec.field(default_factory=Counter)  #: reason → attempts


def judge_ledger(stage: Stage, verdicts: Mapping[str, Verdict], terminals: Terminals) -> Judged:
    """Hold each run against the oracle's verdict on its commit. `verdicts` are by commit id."""
    judged = Judged([])
    runs = stage.look().runs
    by_commit: dict[str, list[Run]] = {commit: [] for commit in verdicts}
    for run in runs:
        by_commit[run.commit].append(run)
    purged = {one.run.commit for one in terminals.purged}
    for commit, found in by_commit.items():
        if len(found) != 1 and not (commit in purged and not found):
            judged.violations.append(f"commit {commit} has {len(found)} runs, not 1")
    for one in (*terminals.purged, *(gather(stage.database, run) for run in runs)):
        asked = terminals.asked.get(one.run.id, Asked())
        judged.violations += _judge_run(one, asked, verdicts[one.run.commit], judged)
    with stage.database.read() as connection:
        known = set(connection.scalars(select(schema.commits.c.commit)))
        total = connection.scalar(select(func.count()).select_from(schema.runs))
    for commit in sorted(known - set(verdicts)):
        judged.violations.append(f"commit {commit} is in the ledger, and no push brought it")
    if total != len(runs):
        judged.violations.append(
            f"the ledger has {total} runs, {len(runs)} of them of commits that were pushed"
        )
    judged.runs = len(runs) + len(terminals.purged)
    return judged


def _judge_run(one: Evidence, asked: Asked, verdict: Verdict, judged: Judged) -> Iterator[str]:
    run, name = one.run, f"run {one.run.id} of {one.run.commit[:12]}"
    judged.attempts += len(one.attempts)
    ended_well = (REPORTED, CANCELLED)
    judged.lost.update(
        _kind_of_loss(attempt.ending) for attempt in one.attempts[:-1] if attempt.ending not in ended_well
    )
    yield from _judge_attempts(name, run, one.attempts, asked)
    if run.status is None:
        yield f"{name} is {run.state}, after {run.attempt} attempts"
        return
    if run.status is not verdict.status:
        yield f"{name} ended as {run.status} ({run.reason or 'no reason'}), the oracle says {verdict.status}"
    reported = sum(attempt.ending == REPORTED for attempt in one.attempts)
    if one.accepted != reported or not (reported or run.status is Status.INFRA_ERROR):
        yield f"{name} has {one.accepted} accepted reports, and {reported} attempts that reported"
    if one.report is not None:
        yield from (f"{name}: {said}" for said in _differences(one.report, run, verdict))


def _judge_attempts(name: str, run: Run, attempts: list[Attempt], asked: Asked) -> Iterator[str]:
    """`asked` is what people asked of the run beside the push that brought it."""
    numbers = [attempt.number for attempt in attempts]
    if numbers != list(range(1, run.attempt + 1)):
        yield f"{name} is at attempt {run.attempt}, and its attempts are numbered {numbers}"
    for attempt in attempts:
        if not attempt.ending or attempt.ended_at is None:
            yield f"attempt {attempt.number} of {name} does not say how it ended"
    endings = Counter(attempt.ending for attempt in attempts)
    if run.status is not Status.INFRA_ERROR and REPORTED not in {each.ending for each in attempts[-1:]}:
        yield f"{name} finished, and its last attempt says {attempts[-1:]}"
    if endings[REPORTED] > 1 + asked.queued + asked.unknown:
        yield f"{name} was tested {endings[REPORTED]} times, and asked for again {asked.queued} times"
    if endings[CANCELLED] > asked.cancelled + asked.unknown:
        yield f"{name} was cancelled {endings[CANCELLED]} times, {asked.cancelled} of them by request"
    # It is queued again only once it has finished, and each time it finishes once more.
    finished = endings[REPORTED] + asked.cancelled + (run.status is Status.INFRA_ERROR)
    if run.status is not None and asked.queued >= finished + asked.unknown:
        yield (
            f"{name} was queued again {asked.queued} times, and finished {finished} times, "
            f"not {asked.queued + 1}: it was queued while it was waiting or under way"
        )


def _differences(report: Report, run: Run, verdict: Verdict) -> Iterator[str]:
    if (report.commit, report.attempt) != (run.commit, run.attempt):
        yield f"its report is on {report.commit}, attempt {report.attempt}"
    found: dict[str, Outcome] = {test.id: test.outcome for test in report.tests}
    if len(found) != len(report.tests):
        yield "its report has a test twice"
    wrong = [
        name for name in found.keys() | verdict.outcomes if found.get(name) != verdict.outcomes.get(name)
    ]
    for name in sorted(wrong)[:SHOWN]:
        said = verdict.outcomes.get(name, "it is not there")
        yield f"{name} is {found.get(name, 'missing')}, the oracle says {said}"


def _kind_of_loss(ending: str) -> str:
    """A reason without what is particular to it."""
    return re.sub(r"worker-\d\S*|/\S+|[0-9a-f]{40}|\b\d+\b", "…", ending)[:70]


def judge_pushes(samples: list[PushSample]) -> list[str]:
    """Each push succeeded, and cost little more than others did then."""
    violations = [f"the push after {one.at_s:.1f} s failed: {one.error}" for one in samples if one.error]
    for one in samples:
        usual_s = max(other.twin_s for other in samples if abs(other.at_s - one.at_s) <= NEIGHBOURS_S)
        if one.took_s > HOOK_SHARE * usual_s + PUSH_COSTS_AT_MOST_S:
            took = f"took {one.took_s:.2f} s, without a hook at most {usual_s:.2f} s"
            violations.append(f"the push after {one.at_s:.1f} s {took}")
    return violations


def judge_idle(stage: Stage) -> list[str]:
    """What is left over once all runs have finished; services still run, and have a while to settle it."""
    for spool in stage.bare.glob("ciapp/spool/.*"):
        os.utime(spool, (time.time() - OLD_S,) * 2)  # of hooks that were killed; removed once they are old

    def look() -> list[str]:
        found = [f"{file} is still there" for file in _spooled(stage.bare)]
        pins = stage.ci.git("for-each-ref", "--format=%(refname)", "refs/ciapp/", cwd=stage.bare).split()
        found += [f"{len(pins)} commits are still pinned, as {pins[0]}"] if pins else []
        found += [f"{file} was not delivered" for state in stage.states() for file in state.glob("outbox/*")]
        return found + stage.broker.left()

    return _settled(look, stage.broker.settles_within_s)


def _spooled(bare: Path) -> list[Path]:
    return [file for file in bare.glob("ciapp/spool/*") if file.name != "rejected"] + list(
        bare.glob("ciapp/spool/rejected/*")
    )


def judge_end(stage: Stage) -> list[str]:
    """What is left over once the services have ended; private servers still run."""

    def look() -> list[str]:
        found = [
            f"process {pid} is still there: {words}"
            for pid, words in survivors(stage.server_pids())
            if NAME_SERVER not in words
        ]
        for folder in (stage.bare, *stage.states()):
            found += [f"{file} is still there" for file in _leftovers(folder)]
        temporary = [file for state in stage.states() for file in state.glob("tmp/*/")]
        found += [f"{file} is still there" for file in (*stage.temporary.iterdir(), *temporary)]
        return found + stage.broker.left_at_the_end()

    return _settled(look, 15.0)


def survivors(servers: set[int]) -> list[tuple[int, str]]:
    """Processes that the drill started, or that these started, and their command lines."""
    spared = {pid for server in servers for pid in list_tree(server)}
    found = []
    for pid in list_tree(os.getpid())[1:]:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words and pid not in spared:  # one that has ended, and is to be reaped, has no words
            found.append((pid, words.strip()[:200]))
    return found


def _leftovers(folder: Path) -> Iterator[Path]:
    """Locks of git's, and what was not whole when its maker died; not files that are locked and stay."""
    for file in folder.rglob("*"):
        stays = file.name == "dispatcher.lock" or (file.suffix == ".lock" and file.parent.name in LOCKS_STAY)
        if (file.suffix in UNFINISHED and not stays) or file.name.startswith(("tmp_", ".tmp-", "gc.pid")):
            yield file


def _settled(look: Callable[[], list[str]], within_s: float) -> list[str]:
    """What is still found when so much time has passed; nothing as soon as nothing is found."""
    until_s = time.monotonic() + within_s
    while found := look():
        if time.monotonic() > until_s:
            return found[: 10 * SHOWN]
        time.sleep(0.2)
    return []
