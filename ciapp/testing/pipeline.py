"""A run, from its claim to its report: the story of testing.

In:  a run's id and the number of the attempt that a message asks for.
Out: the attempt's report; None when it was not this attempt's turn. An attempt that lost its run on the way
     reports what it found so far: the ledger refuses it and keeps it beside the run as evidence.

    admit → checkout → environment → (a result to reuse, or:) sandboxed child → report

What the commit does wrong ends as a report (`ProjectError`); what we do wrong raises, and ends the attempt.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec

from ciapp.errors import CheckoutError, LedgerAwayError, ProjectError, StaleAttemptError
from ciapp.results.database import Database
from ciapp.results.report import Findings, Report, Status
from ciapp.results.reuse import find_reusable, reuse
from ciapp.results.runs import Run, claim_run
from ciapp.results.store import listed_tests, make_report
from ciapp.settings import Settings
from ciapp.testing.checkout import check_out
from ciapp.testing.environment import Interpreter
from ciapp.testing.fingerprint import take_fingerprint
from ciapp.testing.interpreters import find_interpreter
from ciapp.testing.lease import Lease
from ciapp.testing.mirror import Mirror
from ciapp.testing.room import Room
from ciapp.testing.slot import Slot, take_slot
from ciapp.testing.suite import Suite, prepare_suite, unprepared, with_terms
from ciapp.testing.supervisor import run_suite

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
LEDGER_WITHIN_S = 60.0  #: how long a worker waits for a database that is away
#: Longer than until the dispatcher sends the next message for a run that nobody takes.
ROOM_WITHIN_S = 900.0
ASK_AGAIN_S = 0.5


def test_run(run_id: int, attempt: int, *, worker: str, settings: Settings) -> Report | None:
    """Make one attempt at a run. Raises CiError when it fails for our reasons."""
    database, slot = _database(settings.database), _slot(settings.state_path)
    room = Room(settings.state_path, slot.path)
    if not _has_room(room, run_id):
        return None
    run = _claim(database, run_id, attempt, worker=f"{worker}#{slot.number}")
    if run is None:
        logger.info("run not claimed", extra={"run_id": run_id, "attempt": attempt})
        return None
    logger.info("run started", extra={"run_id": run.id, "repo": run.repo, "commit": run.commit[:12]})
    with Lease(database, run) as lease:
        findings = _test(run, lease, room, slot, settings, database)
    if room.was_short and findings.status not in (Status.PASSED, Status.CANCELLED):
        raise CheckoutError(f"{room.was_short}, which may be why tests failed; make room there")
    return make_report(run, findings, finished_at=datetime.now(UTC))


test_run.__test__ = False  # type: ignore[attr-defined]  # its name is the domain's, not a test's


def _has_room(room: Room, run_id: int) -> bool:
    """Wait for room on this host's disks: an attempt that began without it would be lost."""
    until_s = time.monotonic() + ROOM_WITHIN_S
    if said := room.look():
        logger.error("run waits for room", extra={"run_id": run_id, "reason": said})
    while room.look():
        if time.monotonic() > until_s:
            return False
        time.sleep(ASK_AGAIN_S)
    room.was_short = ""
    return True


def _claim(database: Database, run_id: int, attempt: int, worker: str) -> Run | None:
    """Begin the attempt. A database that is away is waited for: nothing else could be begun meanwhile.

    A worker that gave up at once would drop message after message, faster than any that can do the work.
    """
    started_at = datetime.now(UTC)  # the same each time: an answer that was lost is given again
    return _outwait(
        run_id, lambda: claim_run(database, run_id, attempt=attempt, worker=worker, at=started_at)
    )


def _outwait(run_id: int, ask: Callable[[], Answer]) -> Answer:
    """What the ledger answers, asked again while its database is away; at last raises LedgerAwayError."""
    until_s = time.monotonic() + LEDGER_WITHIN_S
    while True:
        try:
            return ask()
        except LedgerAwayError as error:
            if time.monotonic() > until_s:
                raise
            logger.warning("run waits for the ledger", extra={"run_id": run_id, "error": str(error)})
            time.sleep(ASK_AGAIN_S)


def _test(run: Run, lease: Lease, room: Room, slot: Slot, settings: Settings, database: Database) -> Findings:
    def should_stop() -> bool:
        room.look()  # a disk that was full for a moment only is to be seen as well
        return lease.is_lost

    interpreter = find_interpreter(run.environment, settings)
    try:
        with open_run(run, slot, settings, interpreter, should_stop=should_stop) as suite:
            known_tests = _outwait(run.id, lambda: known_tests_of(run, database))
            fingerprint = take_fingerprint(run, suite)
            found = None
            if not run.is_fresh:
                found = _outwait(run.id, lambda: find_reusable(database, fingerprint, known_tests))
            if found is not None:
                logger.info("result reused", extra={"run_id": run.id, "of": found.commit[:12]})
                return reuse(found)
            findings = run_suite(
                msgspec.structs.replace(suite.plan, known_tests=known_tests),
                suite.sandbox,
                on_progress=lambda told: lease.tell_progress(told.known, told.done, told.failed),
                should_stop=should_stop,
            )
            room.look()
            return msgspec.structs.replace(with_terms(findings, suite), fingerprint=fingerprint)
    except (ProjectError, StaleAttemptError) as error:  # stale: it is cancelled, or another attempt's
        room.look()
        return unprepared(error, slot, settings)


@contextlib.contextmanager
def open_run(
    run: Run, slot: Slot, settings: Settings, interpreter: Interpreter, *, should_stop: Callable[[], bool]
) -> Iterator[Suite]:
    """The suite of a run's commit, laid out in the slot; raises as `prepare_suite`, and CheckoutError."""
    granted = settings.for_repository(run.repo)
    mirror = Mirror(settings.state_path, run.repo, should_stop=should_stop, mark=slot.identity.mark)
    mirror.ensure_commit(granted.clone_url or run.git_dir, run.commit)
    checkout = check_out(slot, mirror, run.commit, setting=settings.sandbox, limits=settings.limits)
    with prepare_suite(
        slot,
        checkout,
        settings,
        repository=granted,
        tree=run.tree,
        interpreter=interpreter,
        should_stop=should_stop,
    ) as suite:
        yield suite


def known_tests_of(run: Run, database: Database) -> tuple[tuple[str, int], ...]:
    """What the first parent's report lists, so that a test which vanished is seen; empty without one."""
    return listed_tests(database, run.repo, run.parents[0], run.environment) if run.parents else ()


@cache
def _database(url: str) -> Database:
    return Database(url)


@cache
def _slot(state: Path) -> Slot:
    """This process's slot, held as long as the process lives."""
    return take_slot(state)
