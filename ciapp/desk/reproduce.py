"""`ciapp reproduce`: a run of the ledger's, once more on this machine.

In:  a repository, a commit, perhaps a test of it.
Out: the report, what differs here, and whether the outcome is the recorded one; then a shell, if wanted.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ciapp.desk.screen import Screen, stopping
from ciapp.errors import NoSuchRunError, ProjectError, StaleAttemptError, UsageError
from ciapp.outlets.terminal import escape_line
from ciapp.outlets.text import SHORT_COMMIT, render_results
from ciapp.results.database import Database
from ciapp.results.report import Outcome, Report, Status
from ciapp.results.runs import Run
from ciapp.results.store import make_report, report_on
from ciapp.settings import Settings
from ciapp.show import reproduction_document, write_junit
from ciapp.testing.desk import run_watched, take_desk_slot
from ciapp.testing.pipeline import known_tests_of
from ciapp.testing.records import Key
from ciapp.testing.reproduction import (
    interpreter_like,
    machine_differences,
    open_again,
    outcome_differences,
    pick_tests,
)
from ciapp.testing.shell import run_shell
from ciapp.testing.slot import Slot
from ciapp.testing.suite import Suite, unprepared


def reproduce_run(
    database: Database,
    run: Run,
    settings: Settings,
    *,
    test: str,
    verbose: bool,
    shell: bool,
    as_json: bool,
    junit: Path | None,
) -> Status:
    """Run it again and print how that compares; the status of this run. Raises NoSuchRunError too early."""
    if shell and as_json:
        raise UsageError("--shell and --json both want the terminal; leave one out")
    if shell and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--shell needs a terminal; leave it out, or call ciapp from one")
    recorded = report_on(database, run)
    if recorded is None:
        raise NoSuchRunError(
            f"commit {run.commit[:SHORT_COMMIT]} of {run.repo} has not finished;"
            f" see `ciapp wait {run.repo} {run.commit[:SHORT_COMMIT]}`"
        )
    only = pick_tests(recorded, test) if test else None
    slot = take_desk_slot(settings)
    try:
        with stopping() as should_stop:
            again = _Again(database, run, recorded, settings, Screen(verbose=verbose, to_stderr=as_json))
            report = again.run(slot, only, shell=shell, should_stop=should_stop)
    finally:
        slot.release()
    if junit is not None:
        write_junit(junit, report)
    if as_json:
        document = reproduction_document(report, again.machine, again.outcome)
        click.echo(json.dumps(document, indent=2))
    return report.status


class _Again:
    """One call of `ciapp reproduce`."""

    def __init__(
        self, database: Database, run: Run, recorded: Report, settings: Settings, screen: Screen
    ) -> None:
        self._database = database
        self._run = run
        self._recorded = recorded
        self._settings = settings
        self._screen = screen
        self._interpreter = interpreter_like(recorded.python, settings)
        self.machine: list[str] = []  #: what differs on this machine, a sentence each
        self.outcome: list[str] = []  #: what came out otherwise

    def run(
        self, slot: Slot, only: Sequence[Key] | None, *, shell: bool, should_stop: Callable[[], bool]
    ) -> Report:
        """Run, compare, and open the shell."""
        short = self._run.commit[:SHORT_COMMIT]
        self._screen.introduce({"Commit": f"{short} of {self._run.repo}", "Subject": self._run.subject})
        opened = open_again(
            self._run, self._recorded, slot, self._settings, self._interpreter, should_stop=should_stop
        )
        try:
            with opened as suite:
                report = self._test(suite, only, should_stop)
                self._tell(report, only)
                if shell and not should_stop():
                    self._open_shell(suite, only, should_stop)
        except (ProjectError, StaleAttemptError) as error:
            findings = unprepared(error, slot, self._settings)
            report = make_report(self._run, findings, finished_at=datetime.now(UTC))
            self._tell(report, only)
            if shell:
                self._screen.write("There is no shell, for there is nothing that tests could run in.\n")
        return report

    def _test(self, suite: Suite, only: Sequence[Key] | None, should_stop: Callable[[], bool]) -> Report:
        plan = msgspec.structs.replace(
            suite.plan,
            known_tests=known_tests_of(self._run, self._database),
            only=None if only is None else tuple(only),
            scopes=self._unloaded(only),
        )
        with self._screen.watching(should_stop) as watch:
            watch.on_ready(self._interpreter, suite)
            self._tell_differences(suite)
            findings = run_watched(msgspec.structs.replace(suite, plan=plan), watch)
        return make_report(self._run, findings, finished_at=datetime.now(UTC))

    def _unloaded(self, only: Sequence[Key] | None) -> tuple[str, ...]:
        """Of the tests that are wanted, those that stand for modules which could not be imported."""
        unloaded = {test.id for test in self._recorded.tests if test.outcome is Outcome.LOAD_ERROR}
        return tuple(key[0] for key in only or () if key[0] in unloaded)

    def _tell_differences(self, suite: Suite) -> None:
        recorded = self._recorded
        found = machine_differences(recorded, self._interpreter, suite.plan.limits, self._settings)
        if recorded.installation and recorded.installation != suite.installation:
            found.append(f"installed: recorded {recorded.installation!r}, here {suite.installation!r}")
        if found:
            self._screen.write("Different on this machine:\n" + _listed(found) + "\n")
        self.machine = found

    def _tell(self, report: Report, only: Sequence[Key] | None) -> None:
        self._screen.write(render_results(report) + "\n")
        if report.status is Status.CANCELLED:
            return
        self.outcome = found = outcome_differences(self._recorded, report, only)
        if found:
            self._screen.write("The outcome differs from the recorded one:\n" + _listed(found))
            if only is not None:
                self._screen.write(
                    "Tests that ran before it may matter: leave TEST out to run them all in order.\n"
                )
        else:
            self._screen.write("The outcome is the recorded one.\n")

    def _open_shell(self, suite: Suite, only: Sequence[Key] | None, should_stop: Callable[[], bool]) -> None:
        plan = suite.plan
        words = [str(plan.python), "-m", "unittest", "discover", "-s", plan.start, "-p", plan.pattern]
        words += ["-t", plan.top] if plan.top else []
        words += [word for test_id, _ in (only or ())[:3] for word in ("-k", test_id)]
        self._screen.write(
            "\nA shell in the sandbox, where the tests have left it; `exit` ends it. The tests are run by\n"
            + f"  {escape_line(shlex.join(words))}"
            + "\n"
        )
        if breach := run_shell(suite, should_stop=should_stop):
            self._screen.write(f"The shell was ended: {breach}.\n")


def _listed(sentences: Sequence[str]) -> str:
    return "".join(f"  {escape_line(sentence)}\n" for sentence in sentences)
