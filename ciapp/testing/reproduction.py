"""A recorded run, run once more at somebody's desk, and held against what was recorded.

In:  a run, its report, and a slot of the desk's own.
Out: what differs here from the worker's machine; and, of the findings, what came out otherwise.

The same code lays the commit out, makes its environment and runs its tests. The report says what else there
was: the limits, the hash seed, the interpreter's version.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ciapp.errors import UsageError
from ciapp.results.report import Findings, Report, Status
from ciapp.results.runs import Run
from ciapp.settings import Limits, Settings
from ciapp.testing.environment import Interpreter, default_python
from ciapp.testing.interpreters import find_interpreters, minor_version
from ciapp.testing.launch import MIB, kernel_limits
from ciapp.testing.pipeline import open_run
from ciapp.testing.records import Key
from ciapp.testing.sandbox import find_level
from ciapp.testing.slot import Slot
from ciapp.testing.suite import Suite, platform_name

MOST_NAMED = 20
RAN = (Status.PASSED, Status.FAILED, Status.NO_TESTS)
RESOURCES = {
    resource.RLIMIT_DATA: "memory",
    resource.RLIMIT_FSIZE: "file size",
    resource.RLIMIT_CPU: "processor time",
    resource.RLIMIT_NOFILE: "open files",
}


@contextlib.contextmanager
def open_again(
    run: Run,
    recorded: Report,
    slot: Slot,
    settings: Settings,
    interpreter: Interpreter,
    *,
    should_stop: Callable[[], bool],
) -> Iterator[Suite]:
    """The suite of a recorded run, under what its report says; raises as `open_run`."""
    if recorded.limits is not None:
        settings = msgspec.structs.replace(settings, limits=recorded.limits)
    with open_run(run, slot, settings, interpreter, should_stop=should_stop) as suite:
        seed = suite.plan.hash_seed if recorded.hash_seed is None else recorded.hash_seed
        plan = msgspec.structs.replace(suite.plan, hash_seed=seed)
        yield msgspec.structs.replace(suite, plan=plan)


def interpreter_like(version: str, settings: Settings) -> Interpreter:
    """The Python of this machine that is nearest to a version, "3.11.7"; our own where none is near."""
    own = default_python()
    if not version or version == own.version:
        return own
    wanted = minor_version(version)
    found = find_interpreters(msgspec.structs.replace(settings, pythons=[wanted])).interpreters
    return found.get(wanted, own)


def pick_tests(recorded: Report, named: str) -> tuple[Key, ...]:
    """The tests of a report with that id; else all with that in their ids. Raises UsageError without one."""
    keys = [(test.id, test.ordinal) for test in recorded.tests]
    picked = [key for key in keys if key[0] == named] or [key for key in keys if named in key[0]]
    if not picked:
        raise UsageError(
            f"no test of commit {recorded.commit[:12]} has {named!r} in its id;"
            f" see `ciapp report {recorded.repo} {recorded.commit[:12]} --json`"
        )
    return tuple(picked)


def machine_differences(
    recorded: Report, interpreter: Interpreter, limits: Limits, settings: Settings
) -> list[str]:
    """What is otherwise on this machine than where the report was made; a sentence each."""
    level = find_level(settings.sandbox)
    found = []
    facts = (
        ("Python", recorded.python, interpreter.version),
        ("sandbox", recorded.sandbox, level.name),
        ("platform", recorded.platform, platform_name()),
    )
    for name, there, here in facts:
        if there and there != here:
            why = f" ({level.reason})" if name == "sandbox" and level.reason else ""
            found.append(f"{name}: recorded with {there}, here {here}{why}")
    if recorded.limits is None:
        found.append(
            "limits: the report does not say which were in force, so those of this machine's settings are"
        )
    for number, (wanted, _) in kernel_limits(limits).items():
        highest = resource.getrlimit(number)[1]
        if number in RESOURCES and highest != resource.RLIM_INFINITY and highest < wanted:
            found.append(
                f"limits: {RESOURCES[number]} is held to {highest} here by `ulimit -H`, not {wanted}"
            )
    memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    if memory_mib < limits.memory_mib:
        found.append(f"memory: this machine has {memory_mib} MiB, below the limit of {limits.memory_mib} MiB")
    return found


def outcome_differences(recorded: Report, findings: Findings, only: Sequence[Key] | None) -> list[str]:
    """What came out otherwise than recorded, of all tests or of these alone; a line each."""
    there = {(test.id, test.ordinal): test.outcome.value for test in recorded.tests}
    here = {(test.id, test.ordinal): test.outcome.value for test in findings.tests}
    keys = list(dict.fromkeys((*there, *here))) if only is None else list(only)
    found = []
    for key in keys:
        was, now = there.get(key, "not there"), here.get(key, "not there")
        if was != now:
            found.append(f"{key[0]}{f' #{key[1] + 1}' if key[1] else ''}: recorded {was}, here {now}")
    if only is None:
        scopes = {(one.phase, one.scope) for one in recorded.fixtures}
        failed = {(one.phase, one.scope) for one in findings.fixtures}
        found += [f"{phase} ({scope}): failed there alone" for phase, scope in sorted(scopes - failed)]
        found += [f"{phase} ({scope}): failed here alone" for phase, scope in sorted(failed - scopes)]
    is_comparable = only is None or findings.status not in RAN
    if is_comparable and recorded.status is not findings.status:
        found.insert(0, f"status: recorded {_status(recorded)}, here {_status(findings)}")
    if len(found) > MOST_NAMED:
        found[MOST_NAMED:] = [f"and {len(found) - MOST_NAMED} more"]
    return found


def _status(findings: Findings) -> str:
    return ": ".join(filter(None, (findings.status.value, findings.reason)))
