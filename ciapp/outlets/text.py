"""A report as unittest's own text would read, and the one line per commit of `ciapp log`.

In:  a `Report`, or a `LogLine`.
Out: text for a terminal or a file. Nothing of a commit acts in it (`ciapp.outlets.terminal`), so what a
     caller adds around it (colours of its own) is all that a terminal obeys.

Where unittest has words for an outcome they are used as Python 3.11 and later print them, block for block
and count for count: a failing subtest counts as a failure of its own, a failing fixture as an error. What
unittest cannot tell of (a crash, a timeout, a test that never started) has letters and blocks in the same
manner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import accumulate

import msgspec

from ciapp.outlets.names import unittest_name
from ciapp.outlets.terminal import (
    Color,
    cut_to_width,
    escape_line,
    escape_text,
    format_duration,
    pad_to_width,
    paint,
)
from ciapp.results.report import FixtureResult, Original, Outcome, Report, State, Status, Subtest, TestResult

SHORT_COMMIT = 12
RULE_WIDTH = 70  #: of unittest's separators, and of a line of dots
NAME_WIDTH = 400  #: columns of a test's name in a heading; ids of more are kept whole in JSON
OUTPUT_LINES = 200  #: of what was written outside any test, the last ones
SETUP_PHASES = frozenset({"setUpClass", "setUpModule"})

LETTERS = {
    Outcome.PASSED: ".",
    Outcome.FAILED: "F",
    Outcome.ERRORED: "E",
    Outcome.SKIPPED: "s",
    Outcome.EXPECTED_FAILURE: "x",
    Outcome.UNEXPECTED_SUCCESS: "u",
    Outcome.CRASHED: "C",
    Outcome.TIMED_OUT: "T",
    Outcome.LOAD_ERROR: "E",
    Outcome.NOT_RUN: "-",
}
HEADINGS = {  #: of the outcomes that have a block, in the order of the blocks
    Outcome.ERRORED: "ERROR",
    Outcome.LOAD_ERROR: "ERROR",
    Outcome.CRASHED: "CRASHED",
    Outcome.TIMED_OUT: "TIMED OUT",
    Outcome.FAILED: "FAIL",
}
TALLIES = {  #: the words of the last line, in its order
    Outcome.FAILED: "failures",
    Outcome.ERRORED: "errors",
    Outcome.LOAD_ERROR: "errors",
    Outcome.SKIPPED: "skipped",
    Outcome.EXPECTED_FAILURE: "expected failures",
    Outcome.UNEXPECTED_SUCCESS: "unexpected successes",
    Outcome.CRASHED: "crashed",
    Outcome.TIMED_OUT: "timed out",
    Outcome.NOT_RUN: "not run",
}
VERDICTS = {
    Status.PASSED: "OK",
    Status.FAILED: "FAILED",
    Status.NO_TESTS: "NO TESTS RAN",
    Status.SETUP_FAILED: "SETUP FAILED",
    Status.TIMED_OUT: "TIMED OUT",
    Status.INFRA_ERROR: "INFRA ERROR",
    Status.CANCELLED: "CANCELLED",
}
STATUS_COLORS = {
    Status.PASSED: Color.GREEN,
    Status.FAILED: Color.RED,
    Status.NO_TESTS: Color.YELLOW,
    Status.SETUP_FAILED: Color.RED,
    Status.TIMED_OUT: Color.RED,
    Status.INFRA_ERROR: Color.MAGENTA,
    Status.CANCELLED: Color.YELLOW,
}
STATE_COLORS: dict[State | None, Color] = {State.RUNNING: Color.CYAN}


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """What `ciapp log` shows of one commit."""

    commit: str
    subject: str
    state: State | None = None  #: None when the commit has no run
    status: Status | None = None  #: None until it is finished
    counts: Mapping[str, int] = {}  #: tests per outcome, as in a report
    duration_s: float | None = None
    note: str = ""  #: "queued", "running 34/120, 1 failed", "not tested", "attempt 2"


class Event(msgspec.Struct, frozen=True):
    """One letter in the line of dots, and the block it may have. Nothing in it is escaped."""

    outcome: Outcome
    name: str
    detail: str = ""
    message: str = ""  #: one line


def render_report(report: Report) -> str:
    """The report for people to read; ends with a newline."""
    events = list(_events(report))
    return escape_text("\n".join((_header(report), "", *_dots(events)))) + "\n" + render_results(report)


def render_results(report: Report) -> str:
    """What follows the dots: all of a report that its first lines do not tell; ends with a newline."""
    events = list(_events(report))
    parts = list(_blocks(events))
    parts += _output_outside_tests(report)
    if events or report.status in {Status.PASSED, Status.FAILED, Status.NO_TESTS}:
        ran = sum(test.outcome is not Outcome.NOT_RUN for test in report.tests)
        parts += ["-" * RULE_WIDTH, f"Ran {ran} test{'s' * (ran != 1)} in {report.duration_s:.3f}s", ""]
    parts.append(_verdict(report, events))
    if report.warnings:
        parts += ["", *(f"Warning: {escape_line(warning)}" for warning in report.warnings)]
    # Once more over the whole: a field that was forgotten above is no way into the terminal.
    return escape_text("\n".join(parts)) + "\n"


def render_log_line(line: LogLine, *, width: int = 0, color: bool = False) -> str:
    """One line without its newline, at most `width` columns wide (0: as long as it gets).

    A finished commit shows its status, counts and duration, and the note before its subject; any other
    shows the note in their place.
    """
    lead = pad_to_width(escape_line(line.commit[:SHORT_COMMIT]), SHORT_COMMIT) + "  "
    note, subject = escape_line(line.note), escape_line(line.subject)
    if line.status:
        word = line.status.value
        counts = escape_line(", ".join(f"{number} {outcome}" for outcome, number in line.counts.items()))
        duration = "" if line.duration_s is None else format_duration(line.duration_s)
        fields = f"{word:9} {pad_to_width(counts, 20)} {duration:>6}"
        subject = f"[{note}] {subject}" if note else subject
    else:
        word = note or (line.state.value if line.state else "not tested")
        fields = pad_to_width(word, 37)
    shown = f"{lead}{fields}  {subject}".rstrip()
    if width:
        shown = cut_to_width(shown, width)
    painted = STATUS_COLORS[line.status] if line.status else STATE_COLORS.get(line.state)
    if color and painted:
        end = len(lead) + len(word)
        shown = shown[: len(lead)] + paint(shown[len(lead) : end], painted) + shown[end:]
    return shown


def events_of(found: TestResult | FixtureResult) -> Iterator[Event]:
    """What the line of dots has of a test, or of a fixture that failed."""
    if isinstance(found, FixtureResult):
        yield _fixture_event(found)
    else:
        yield from _test_events(found)


def _header(report: Report) -> str:
    refs = ", ".join(ref.removeprefix("refs/heads/") for ref in report.refs)
    environment = f"Python {report.python}" if report.python else ""
    sandbox = f"sandbox: {report.sandbox}" if report.sandbox else ""
    when = report.finished_at or report.started_at
    fields = {
        "Commit": f"{report.commit[:SHORT_COMMIT]} of {report.repo}" + (f" ({refs})" if refs else ""),
        "Subject": report.subject,
        "Author": report.author,
        "Environment": ", ".join(filter(None, (report.environment, environment, sandbox))),
        "Installed": report.installation,
        "Attempt": f"{report.attempt}" + (f", by {report.worker}" if report.worker else ""),
        "Finished": _instant(when) if when else "",
        "Reused": _original(report.reused_from) if report.reused_from else "",
        "Status": report.status.value,
    }
    return "\n".join(f"{name + ':':12} {escape_line(value)}" for name, value in fields.items() if value)


def _original(original: Original) -> str:
    when = f", tested {_instant(original.finished_at)}" if original.finished_at else ""
    purged = "" if original.is_kept else "; its own report was purged"
    return (
        f"the result of the same files in {original.commit[:SHORT_COMMIT]}{when} by {original.worker}{purged}"
    )


def _instant(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _events(report: Report) -> Iterator[Event]:
    """What happened, in order: a fixture stands before the first test of its scope, or after the last.

    A fixture whose scope has no test in the report comes at the end.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    if report.fixtures:
        for index, test in enumerate(report.tests):
            for scope in accumulate(test.id.split("."), "{}.{}".format):
                first.setdefault(scope, index)
                last[scope] = index
    before: dict[int, list[FixtureResult]] = {}
    after: dict[int, list[FixtureResult]] = {}
    end = len(report.tests)
    for fixture in report.fixtures:
        is_setup = fixture.phase in SETUP_PHASES
        index = (first if is_setup else last).get(fixture.scope, end)
        (before if is_setup else after).setdefault(index, []).append(fixture)
    for index, test in enumerate(report.tests):
        yield from map(_fixture_event, before.get(index, ()))
        yield from _test_events(test)
        yield from map(_fixture_event, after.get(index, ()))
    yield from map(_fixture_event, before.get(end, []) + after.get(end, []))


def _fixture_event(fixture: FixtureResult) -> Event:
    detail = _with_output(fixture.traceback or fixture.message, fixture)
    return Event(Outcome.ERRORED, f"{fixture.phase} ({fixture.scope})", detail, fixture.message)


def _test_events(test: TestResult) -> Iterator[Event]:
    """The subtests that did not pass, then the test itself, unless those explain its outcome already."""
    name = unittest_name(test)
    subtests = [subtest for subtest in test.subtests if subtest.outcome is not Outcome.PASSED]
    explained = {subtest.outcome for subtest in subtests} | ({Outcome.PASSED} if subtests else set())
    if not test.traceback and test.outcome in explained:
        *others, last = subtests
        yield from (_subtest_event(name, subtest) for subtest in others)
        event = _subtest_event(name, last)
        yield Event(event.outcome, event.name, _with_output(event.detail, test), event.message)
        return
    yield from (_subtest_event(name, subtest) for subtest in subtests)
    detail = test.traceback or test.message
    if test.outcome in {Outcome.CRASHED, Outcome.TIMED_OUT} and test.message not in detail:
        detail = f"{test.message}\n{detail}"  # the signal or the limit, then the stacks
    yield Event(test.outcome, name, _with_output(detail, test), test.message)


def _subtest_event(name: str, subtest: Subtest) -> Event:
    detail = subtest.traceback or subtest.message
    return Event(subtest.outcome, f"{name} {subtest.parameters}", detail, subtest.message)


def _with_output(detail: str, source: TestResult | FixtureResult) -> str:
    """The detail, followed by what was written meanwhile, as `unittest -b` shows it."""
    parts = [_ended(detail)]
    parts += [f"\nStdout:\n{_ended(source.stdout)}"] if source.stdout else []
    parts += [f"\nStderr:\n{_ended(source.stderr)}"] if source.stderr else []
    return "".join(parts)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _dots(events: list[Event]) -> Iterator[str]:
    letters = "".join(LETTERS[event.outcome] for event in events)
    for start in range(0, len(letters), RULE_WIDTH):
        yield letters[start : start + RULE_WIDTH]


def _blocks(events: list[Event]) -> Iterator[str]:
    """Errors of every kind as they came, then failures, then unexpected successes: unittest's order."""
    errors = [e for e in events if e.outcome in HEADINGS and e.outcome is not Outcome.FAILED]
    failures = [e for e in events if e.outcome is Outcome.FAILED]
    for event in errors + failures:
        yield "=" * RULE_WIDTH
        yield f"{HEADINGS[event.outcome]}: {_heading(event)}"
        yield "-" * RULE_WIDTH
        yield event.detail
    surprises = [e for e in events if e.outcome is Outcome.UNEXPECTED_SUCCESS]
    if surprises:
        yield "=" * RULE_WIDTH
        yield from (f"UNEXPECTED SUCCESS: {_heading(event)}" for event in surprises)


def _heading(event: Event) -> str:
    return cut_to_width(escape_line(event.name), NAME_WIDTH)


def _output_outside_tests(report: Report) -> Iterator[str]:
    if report.output and report.status is not Status.PASSED:
        lines = report.output.splitlines()
        left_out = len(lines) - OUTPUT_LINES
        yield "=" * RULE_WIDTH
        yield "OUTPUT outside any test" + (f" ({left_out} lines before are left out)" * (left_out > 0))
        yield "-" * RULE_WIDTH
        yield "\n".join(lines[-OUTPUT_LINES:]) + "\n"


def _verdict(report: Report, events: list[Event]) -> str:
    found: Counter[str] = Counter()
    for outcome, words in TALLIES.items():
        found[words] += sum(event.outcome is outcome for event in events)
    tallies = ", ".join(f"{words}={number}" for words, number in found.items() if number)
    verdict = VERDICTS[report.status] + (f" ({tallies})" if tallies else "")
    clauses = ["says nothing about the commit"] if report.status is Status.INFRA_ERROR else []
    clauses += [escape_line(report.reason)] if report.reason else []
    return verdict + (": " + "; ".join(clauses) if clauses else "")
