"""A run, from its claim to its report: the story of testing.

In:  a run's id and the number of the attempt that a message asks for.
Out: the attempt's report; None when it was not this attempt's turn. An attempt that lost its run on the way
     reports what it found so far: the ledger refuses it and keeps it beside the run as evidence.

    admit → checkout → environment → sandboxed child → report

What the commit does wrong ends as a report (`ProjectError`); what we do wrong raises, and ends the attempt.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from ciapp.errors import ProjectError, StaleAttemptError
from ciapp.results.database import Database
from ciapp.results.report import Findings, Report, Status
from ciapp.results.runs import Run, claim_run, find_runs
from ciapp.results.store import load_report, make_report
from ciapp.settings import Settings
from ciapp.testing.checkout import check_out
from ciapp.testing.environment import default_python
from ciapp.testing.lease import Lease
from ciapp.testing.mirror import Mirror
from ciapp.testing.preparation import prepare_environment
from ciapp.testing.project import load_project, lower_limits
from ciapp.testing.sandbox import open_sandbox
from ciapp.testing.slot import Slot, take_slot
from ciapp.testing.supervisor import SuitePlan, run_suite

logger = logging.getLogger(__name__)


def test_run(run_id: int, attempt: int, *, worker: str, settings: Settings) -> Report | None:
    """Make one attempt at a run. Raises CiError when it fails for our reasons."""
    database, slot = _database(settings.database), _slot(settings.state_path)
    run = claim_run(database, run_id, attempt=attempt, worker=f"{worker}#{slot.number}")
    if run is None:
        logger.info("run not claimed", extra={"run_id": run_id, "attempt": attempt})
        return None
    logger.info("run started", extra={"run_id": run.id, "repo": run.repo, "commit": run.commit[:12]})
    with Lease(database, run) as lease:
        findings = _test(run, lease, slot, settings, database)
    return make_report(run, findings, finished_at=datetime.now(UTC))


test_run.__test__ = False  # type: ignore[attr-defined]  # its name is the domain's, not a test's


def _test(run: Run, lease: Lease, slot: Slot, settings: Settings, database: Database) -> Findings:
    granted = settings.for_repository(run.repo)
    mirror = Mirror(settings.state_path, run.repo)
    mirror.ensure_commit(granted.clone_url or run.git_dir, run.commit)
    try:
        checkout = check_out(slot, mirror, run.commit, setting=settings.sandbox, limits=settings.limits)
        project = load_project(checkout.path, granted.project, settings.limits)
    except ProjectError as error:
        return Findings(status=Status.SETUP_FAILED, reason=str(error))
    try:
        with prepare_environment(
            slot,
            checkout,
            project.install,
            settings,
            tree=run.tree,
            interpreter=default_python(),
            should_stop=lambda: lease.is_lost,
        ) as environment:
            limits = lower_limits(settings.limits, project)
            sandbox = open_sandbox(slot, checkout, limits, setting=settings.sandbox, network=granted.network)
            own = {
                name: value.replace("{checkout}", str(sandbox.checkout))
                for name, value in project.env.items()
            }
            plan = SuitePlan(
                python=environment.python,
                readable=environment.readable,
                start=project.unittest.start,
                pattern=project.unittest.pattern,
                top=project.unittest.top,
                environment=environment.variables | own,
                hash_seed=int(run.tree[:8], 16) % 4294967296,
                limits=limits,
                known_tests=_tests_of_parent(run, database),
            )
            findings = run_suite(
                plan,
                sandbox,
                on_progress=lambda told: lease.tell_progress(told.known, told.done, told.failed),
                should_stop=lambda: lease.is_lost,
            )
            return msgspec.structs.replace(findings, installation=environment.explanation)
    except ProjectError as error:
        return Findings(status=Status.SETUP_FAILED, reason=str(error), output=error.output)
    except StaleAttemptError as error:  # it is cancelled, or another attempt's
        return Findings(status=Status.CANCELLED, reason=str(error))


def _tests_of_parent(run: Run, database: Database) -> tuple[tuple[str, int], ...]:
    """What the first parent's report lists, so that a test which vanished is seen; empty without one."""
    for parent in find_runs(database, run.repo, run.parents[:1]):
        if parent.environment == run.environment:
            report = load_report(database, parent.id)
            return tuple((test.id, test.ordinal) for test in report.tests) if report else ()
    return ()


@cache
def _database(url: str) -> Database:
    return Database(url)


@cache
def _slot(state: Path) -> Slot:
    """This process's slot, held as long as the process lives."""
    return take_slot(state)
