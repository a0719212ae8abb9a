"""The report: what one attempt found out about one commit in one environment.

Everything here is a frozen value. `Findings` is what testing found; `Report` adds which run it was.
`to_json_types` and `from_json_types` are the one way in and out of plain JSON types, for the result
backend, the ledger, and `--json`; the document carries `"schema": 1`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from ciapp.settings import Limits

SCHEMA = 1


class Outcome(StrEnum):
    """What became of one test."""

    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    SKIPPED = "skipped"
    EXPECTED_FAILURE = "expected-failure"
    UNEXPECTED_SUCCESS = "unexpected-success"
    CRASHED = "crashed"  #: the process ended while the test was open
    TIMED_OUT = "timed-out"
    LOAD_ERROR = "load-error"  #: a module that could not be imported
    NOT_RUN = "not-run"  #: in the manifest, never started

    @property
    def is_good(self) -> bool:
        """Whether a run may pass with this outcome in it."""
        return self in {Outcome.PASSED, Outcome.SKIPPED, Outcome.EXPECTED_FAILURE}


class Status(StrEnum):
    """What became of one finished run."""

    PASSED = "passed"
    FAILED = "failed"
    NO_TESTS = "no-tests"
    SETUP_FAILED = "setup-failed"  #: the commit's own dependencies or configuration
    TIMED_OUT = "timed-out"
    INFRA_ERROR = "infra-error"  #: ours; says nothing about the commit
    CANCELLED = "cancelled"

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends in this verdict."""
        if self is Status.PASSED:
            return 0
        return 3 if self is Status.INFRA_ERROR else 1


class Evidence(StrEnum):
    """What findings say of other commits with the same fingerprint; see `ciapp.results.reuse`."""

    FOR = "for"
    AGAINST = "against"
    NONE = ""


class State(StrEnum):
    """Where a run is in its life: queued → running → finished; running → queued when a lease expires."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class Subtest(msgspec.Struct, frozen=True, kw_only=True):
    """One `with self.subTest(...)` block."""

    parameters: str  #: as unittest shows them: "(i=3) [message]"
    ordinal: int  #: 0 for the first block of its test
    outcome: Outcome
    message: str = ""
    traceback: str = ""


class TestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one test did in one run. Unique by id and ordinal."""

    id: str  #: unittest's id(): "tests.test_push.TestPush.test_deleted_ref"; a module's name for a load error
    ordinal: int = 0  #: 0 for the first test of that id, 1 for the second, in order of discovery
    outcome: Outcome
    duration_s: float | None = None  #: on the child's monotonic clock; None when the test never ended
    message: str = ""  #: one line: the exception, or the reason of a skip
    traceback: str = ""  #: every traceback of the test, in order; stack dumps of a crash or a timeout
    stdout: str = ""  #: head and tail of what was written to descriptor 1 while the test was open
    stderr: str = ""
    subtests: tuple[Subtest, ...] = ()


class FixtureResult(msgspec.Struct, frozen=True, kw_only=True):
    """A class or module fixture that failed: it belongs to its scope, not to a test."""

    phase: str  #: setUpClass, tearDownClass, setUpModule, tearDownModule, or "the suite"
    scope: str  #: the class or module, as unittest names it; empty for the suite
    message: str = ""
    traceback: str = ""
    stdout: str = ""
    stderr: str = ""


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """The run that a reused result is from, as it was when that was tested."""

    commit: str
    attempt: int
    worker: str
    finished_at: datetime | None
    is_kept: bool = True  #: whether the ledger still has its own report; filled in when a report is read


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What testing found: the part of a report that does not depend on who asked."""

    status: Status
    reason: str = ""  #: one sentence, for every status that tests alone do not explain
    warnings: tuple[str, ...] = ()
    tests: tuple[TestResult, ...] = ()
    fixtures: tuple[FixtureResult, ...] = ()
    output: str = ""  #: head and tail of what was written outside any test, stdout and stderr
    python: str = ""  #: version of the interpreter that ran the tests, "3.11.7"
    installation: str = ""  #: what was installed for the tests, and why
    sandbox: str = ""  #: the level in force: "bubblewrap" or "limits"
    platform: str = ""  #: of the machine: "Linux x86_64, glibc 2.36"
    limits: Limits | None = None  #: what the tests were held to
    hash_seed: int | None = None  #: PYTHONHASHSEED
    children: int = 0  #: how many child processes it took; more than 1 after a crash or a timeout
    duration_s: float = 0.0  #: of the tests, from the first child's start to the last one's end
    fingerprint: str = ""  #: digest of all that the verdict depends on; empty: of more than can be told
    reused_from: Original | None = None  #: whose result this is; None when the tests were run for it

    @property
    def evidence(self) -> Evidence:
        """What they say of others: for them only as a pass that leaves no doubt."""
        if not self.fingerprint:
            return Evidence.NONE
        if self.status in {Status.FAILED, Status.TIMED_OUT, Status.NO_TESTS}:
            return Evidence.AGAINST
        is_certain = self.status is Status.PASSED and self.children == 1 and not self.warnings
        return Evidence.FOR if is_certain else Evidence.NONE


class Report(Findings, frozen=True, kw_only=True):
    """Findings, and the run and attempt they belong to. Instants are aware, UTC."""

    schema: int = SCHEMA
    repo: str
    commit: str
    tree: str
    refs: tuple[str, ...] = ()  #: refs that pushed this commit, full names
    author: str = ""
    subject: str = ""
    environment: str = "default"
    state: State = State.FINISHED
    attempt: int = 1
    worker: str = ""
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    counts: dict[str, int] = {}  #: tests per outcome; outcomes that did not occur are left out


def count_outcomes(tests: Iterable[TestResult]) -> dict[str, int]:
    """Tests per outcome, in the order of `Outcome`; outcomes that did not occur are left out."""
    found = Counter(test.outcome for test in tests)
    return {outcome.value: found[outcome] for outcome in Outcome if found[outcome]}


def to_json_types(report: Findings) -> dict[str, Any]:
    """The report as dict, list, str, int, float, bool and None; instants as ISO 8601 in UTC."""
    # Not msgspec.to_builtins, which leaves tuples.
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(report))
    return document


def from_json_types(document: dict[str, Any]) -> Report:
    """The inverse of `to_json_types`; raises msgspec.ValidationError for a document of another shape."""
    return msgspec.convert(document, Report)
