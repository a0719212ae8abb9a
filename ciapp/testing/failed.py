"""What failed when it last ran, for running that alone.

In:  what was known of a tree, and the findings of a further run of some or all of its tests.
Out: what is known now; a file of it in the state folder.

A test that failed stays until it has run and did not fail. What has no tests of its own to run again (a class
or module fixture, a module that could not be imported) is kept as a scope: all tests in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from ciapp.errors import CheckoutError
from ciapp.results.report import Findings, Outcome, Status
from ciapp.testing.child.listing import is_within
from ciapp.testing.records import Key

ENDED = (Status.PASSED, Status.FAILED, Status.NO_TESTS)


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Tests, classes and modules that failed."""

    tests: tuple[Key, ...] = ()
    scopes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tests or self.scopes)


def still_failed(known: Failed, findings: Findings, *, was_part: bool) -> Failed:
    """What failed by now; `was_part`: neither all tests were to run, nor all that had failed."""
    bad = {
        (test.id, test.ordinal)
        for test in findings.tests
        if not test.outcome.is_good and test.outcome not in (Outcome.NOT_RUN, Outcome.LOAD_ERROR)
    }
    scopes = {fixture.scope for fixture in findings.fixtures}
    scopes |= {test.id for test in findings.tests if test.outcome is Outcome.LOAD_ERROR}
    missed = {(test.id, test.ordinal) for test in findings.tests if test.outcome is Outcome.NOT_RUN}
    ran = {(test.id, test.ordinal) for test in findings.tests} - missed
    if was_part or findings.status not in ENDED:
        missed |= set(known.tests) - ran
        scopes |= {one for one in known.scopes if not any(is_within(test_id, (one,)) for test_id, _ in ran)}
    return Failed(
        tests=tuple(sorted(bad | missed & set(known.tests))),
        scopes=tuple(sorted(scopes)),
    )


def all_failed(parts: Iterable[Failed]) -> Failed:
    """What failed in any of several runs."""
    found = list(parts)
    return Failed(
        tests=tuple(sorted({key for part in found for key in part.tests})),
        scopes=tuple(sorted({scope for part in found for scope in part.scopes})),
    )


def load_failed(file: Path) -> Failed:
    """What the file says; nothing when it is not there or not to be understood."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Failed)
    except (OSError, msgspec.MsgspecError):
        return Failed()


def save_failed(file: Path, failed: Failed) -> None:
    """Keep it for the next run. Raises CheckoutError when it cannot be written."""
    written = file.with_suffix(".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        written.write_bytes(msgspec.json.encode(failed))
        written.rename(file)
    except OSError as error:
        raise CheckoutError(f"{file} cannot be written: {error.strerror}; check state_dir") from error
