"""The verdict: the manifest minus the journal.

In:  what the children said (`Journal`), what tests wrote (`Outputs`), and how the attempt came to its end.
Out: findings, with one final outcome for each test.

The hard idea: passed has to be proved. Every child said its end record, no line was lost or came twice, every
test of the manifest has an outcome, all of them are good, and no exit status says otherwise; whatever falls
short of that did not pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from ciapp.results.report import Findings, FixtureResult, Outcome, Status, TestResult
from ciapp.testing.journal import Journal
from ciapp.testing.output import Outputs, Scope
from ciapp.testing.records import Key, Record

NAMES_SHOWN = 5  #: in a warning


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt was brought to its end, as far as the children cannot tell."""

    status: Status | None = None  #: timed-out or cancelled, where the attempt was cut short
    reason: str = ""
    odd_exits: tuple[str, ...] = ()  #: how children exited that ended well: not with status 0
    warnings: tuple[str, ...] = ()
    sandbox: str = ""
    duration_s: float = 0.0


def conclude(journal: Journal, outputs: Outputs, close: Close, known_tests: Sequence[Key] = ()) -> Findings:
    """What the attempt found. `known_tests` are those of the parent commit's report."""
    tests = [result_of(record, outputs) for record in journal.records.values()]
    status, reason = _judge(journal, tests, close)
    missing = _missing(journal, tests, status, known_tests)
    return Findings(
        status=status,
        reason=reason,
        warnings=(*_warnings(journal, outputs, tests, missing), *close.warnings),
        tests=(*tests, *missing.not_run),
        fixtures=tuple(_fixture(found, place, outputs) for found, place in journal.fixtures.failed),
        output=outputs.outside(),
        python=journal.python,
        sandbox=close.sandbox,
        children=journal.children,
        duration_s=close.duration_s,
    )


def _judge(journal: Journal, tests: Sequence[TestResult], close: Close) -> tuple[Status, str]:
    if close.status is not None:
        return close.status, close.reason
    if journal.setup_problem:
        return Status.SETUP_FAILED, journal.setup_problem
    doubts = [close.reason, *journal.unexplained]
    if journal.is_overfull:
        doubts.append("there are more tests than one report can hold; split the suite")
    # First, for whoever speaks at the same time may break lines of the child's as well.
    if journal.contradictions:
        doubts.append(
            f"{count(journal.contradictions, 'event')} of the tests came twice or after the end, "
            "so somebody else spoke for them"
        )
    if journal.lost:
        doubts.append(
            f"{count(journal.lost, 'event')} of the tests went missing, so what they did is not known"
        )
    if not journal.is_good and not journal.failed and not journal.fixtures.failed:
        doubts.append("unittest itself takes the tests for failed, though they told of no failure")
    doubts += close.odd_exits
    if lost := [test_id for test_id, _ in journal.out_of_reach()]:
        doubts.append(
            f"{count(len(lost), 'test')} of one process not found by the next: {names(lost, len(lost))}; "
            "ids must be the same in every process"
        )
    if not journal.child.has_ended and not journal.child.is_whole:
        doubts.append("the process ended while a suite made its tests, of which there may be more")
    if journal.child.has_ended and (left := [test_id for test_id, _ in journal.left()]):
        doubts.append(
            f"{count(len(left), 'test')} not run, though the suite came to its end: {names(left, len(left))}"
        )
    reason = next(filter(None, doubts), "")
    everyone_ended = journal.is_listed and journal.ended == journal.children
    all_good = everyone_ended and not journal.fixtures.failed and all(test.outcome.is_good for test in tests)
    if reason or not all_good:
        return Status.FAILED, reason
    if not tests:
        return Status.NO_TESTS, "no test was found; check the start directory and the pattern"
    return Status.PASSED, ""


def result_of(record: Record, outputs: Outputs) -> TestResult:
    """What is known of a test by now."""
    test_id, ordinal = record.key
    outcome, message = record.outcome, record.message
    if outcome is None:
        outcome, message = record.default or (Outcome.NOT_RUN, "")
    if record.more_subtests:
        message = f"{message} (and {count(record.more_subtests, 'further subtest')} not shown)".lstrip()
    return TestResult(
        id=test_id,
        ordinal=ordinal,
        outcome=outcome,
        duration_s=record.duration_s,
        message=message,
        traceback=record.traceback,
        stdout=outputs.text(record.scope, 1) if record.scope else "",
        stderr=outputs.text(record.scope, 2) if record.scope else "",
        subtests=tuple(record.subtests),
    )


def _fixture(found: FixtureResult, place: Scope | None, outputs: Outputs) -> FixtureResult:
    if place is None:
        return found
    return msgspec.structs.replace(found, stdout=outputs.text(place, 1), stderr=outputs.text(place, 2))


class _Missing(msgspec.Struct, frozen=True):
    """Tests of the parent commit that this run did not find."""

    not_run: list[TestResult]  #: because what holds them could not be loaded
    hidden: list[str]  #: because the module or class that holds them is skipped
    vanished: list[str]  #: for no such reason


def _missing(
    journal: Journal, tests: Sequence[TestResult], status: Status, known_tests: Sequence[Key]
) -> _Missing:
    missing = _Missing([], [], [])
    if status in (Status.SETUP_FAILED, Status.CANCELLED):
        return missing
    found = {(test.id, test.ordinal) for test in tests}
    unknown = [key for key in known_tests if key not in found]
    if not unknown:
        return missing
    unloaded = {test.id for test in tests if test.outcome is Outcome.LOAD_ERROR} | set(journal.lost_modules)
    skipped = {test.id for test in tests if test.outcome is Outcome.SKIPPED}
    scopes = {scope for test in tests for scope in _scopes(test.id)}
    for test_id, ordinal in unknown:
        if not journal.is_listed or not unloaded.isdisjoint(_scopes(test_id)):
            message = "its module could not be loaded" if journal.is_listed else "discovery did not end"
            missing.not_run.append(
                TestResult(id=test_id, ordinal=ordinal, outcome=Outcome.NOT_RUN, message=message)
            )
        elif not skipped.isdisjoint(_scopes(test_id)):
            missing.hidden.append(test_id)
        # A module that loads again was a load error before.
        elif test_id not in scopes:
            missing.vanished.append(test_id)
    return missing


def _scopes(test_id: str) -> list[str]:
    """The packages, module and class that an id names: "a.b.c" → "a", "a.b"."""
    return [test_id[:at] for at, letter in enumerate(test_id) if letter == "."]


def _warnings(
    journal: Journal, outputs: Outputs, tests: Sequence[TestResult], missing: _Missing
) -> list[str]:
    warnings = []
    if journal.unloaded:
        number = len(journal.unloaded) + journal.more_unloaded
        warnings.append(
            f"{count(number, 'file')} not loaded, though matching the pattern: "
            f"{names(journal.unloaded, number)}; look for a missing __init__.py or a name that is no module's"
        )
    shared = [test_id for test_id, times in Counter(test.id for test in tests).items() if times > 1]
    if shared:
        warnings.append(f"{count(len(shared), 'id')} shared by several tests: {names(shared, len(shared))}")
    if vanished := missing.vanished:
        warnings.append(
            f"{count(len(vanished), 'test')} of the parent commit not found: {names(vanished, len(vanished))}"
        )
    if hidden := missing.hidden:
        warnings.append(
            f"{count(len(hidden), 'test')} of the parent commit in modules that skip themselves now: "
            f"{names(hidden, len(hidden))}"
        )
    if tests and all(test.outcome is Outcome.SKIPPED for test in tests):
        warnings.append("every test was skipped")
    warnings += [f"{scope} skipped itself: {message}" for scope, message in journal.fixtures.skipped.items()]
    if journal.strays:
        warnings.append(
            f"{count(journal.strays, 'forked process', 'forked processes')} came back into the suite: "
            "ended, and not listened to"
        )
    if journal.refused:
        warnings.append(f"{count(journal.refused, 'line')} on the event channel refused: not of this run")
    if left_out := outputs.left_out():
        warnings.append(f"{count(left_out, 'byte')} of output left out")
    return warnings


def count(number: int, one: str, many: str = "") -> str:
    """A number and its noun: "1 file", "3 files"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def names(found: Sequence[str], number: int) -> str:
    """The first few names of `number` in all."""
    shown = ", ".join(name if len(name) <= 120 else f"{name[:119]}…" for name in found[:NAMES_SHOWN])
    return shown if number <= NAMES_SHOWN else f"{shown} and {number - NAMES_SHOWN} more"
