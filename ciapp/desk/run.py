"""`ciapp run`: a working tree's tests on the user's own terminal.

In:  a folder, which of its tests are wanted how often, and under which Pythons.
Out: letters or lines while tests run, then the report of each Python; the verdict, which is of all of them.

No server and no ledger take part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ciapp.context import EACH_PYTHON
from ciapp.desk.screen import Screen, stopping
from ciapp.errors import ProjectError, UsageError
from ciapp.outlets.terminal import escape_line, format_duration
from ciapp.outlets.text import SHORT_COMMIT, render_results
from ciapp.results.matrix import DEFAULT, environment_of, version_of
from ciapp.results.overall import most_telling
from ciapp.results.report import Findings, Report, Status, count_outcomes
from ciapp.settings import Settings
from ciapp.show import desk_document, write_junit
from ciapp.testing.desk import Order, pick_interpreter, take_desk_slot, test_tree
from ciapp.testing.failed import all_failed, load_failed, save_failed, still_failed
from ciapp.testing.project import named_pythons
from ciapp.testing.slot import Slot
from ciapp.testing.tree import WorkingTree, find_tree


def run_tree(
    path: Path,
    settings: Settings,
    order: Order,
    *,
    only_failed: bool,
    times: int,
    verbose: bool,
    as_json: bool,
    junit: Path | None,
) -> Status:
    """Run up to so many times, until it does not pass; print it, and return the last run's status."""
    desk = _Desk(find_tree(path), settings, Screen(verbose=verbose, to_stderr=as_json))
    with stopping() as should_stop:
        reports = desk.run(order, only_failed=only_failed, times=times, should_stop=should_stop)
    if junit is not None:
        write_junit(junit, *reports)
    if as_json:
        click.echo(json.dumps(desk_document(reports), indent=2))
    return most_telling(report.status for report in reports)


class _Desk:
    """One call of `ciapp run`."""

    def __init__(self, tree: WorkingTree, settings: Settings, screen: Screen) -> None:
        self._tree = tree
        self._settings = settings
        self._screen = screen
        self._memory = settings.state_path / "desk" / "failed" / f"{tree.key}.json"

    def run(
        self, order: Order, *, only_failed: bool, times: int, should_stop: Callable[[], bool]
    ) -> list[Report]:
        """Run up to so many times, until it does not pass; the last reports, which are printed too.

        There is one for each Python that is asked for; fewer when somebody wants it to stop.
        """
        failed = load_failed(self._memory)
        if only_failed and failed:
            order = msgspec.structs.replace(order, only=failed.tests, scopes=failed.scopes)
        elif only_failed:
            self._screen.write("Nothing failed when it last ran, so all tests run.\n")
        self._screen.introduce({"Tree": _called(self._tree)})  # an environment may take its time
        named = self._named()
        versions = (named or [""]) if order.python == EACH_PYTHON else [order.python]
        slot = take_desk_slot(self._settings)
        try:
            for number in range(1, times + 1):
                began_at = datetime.now(UTC)
                reports = self._run_under(versions, slot, order, should_stop, is_last=number == times)
                tested = [report for report in reports if report.status is not Status.INFRA_ERROR]
                failed = all_failed(
                    still_failed(failed, report, was_part=bool(order.names)) for report in tested
                )
                save_failed(self._memory, failed)
                status = most_telling(report.status for report in reports)
                if status is not Status.PASSED or number == times or should_stop():
                    break
                took = format_duration((datetime.now(UTC) - began_at).total_seconds())
                self._screen.write(f"Run {number} of at most {times} passed in {took}.\n")
        finally:
            slot.release()
        self._sum_up(reports, named)
        return reports

    def _run_under(
        self,
        versions: Sequence[str],
        slot: Slot,
        order: Order,
        should_stop: Callable[[], bool],
        *,
        is_last: bool,
    ) -> list[Report]:
        """Run once under each version, and print what did not pass; all reports of the last time."""
        reports: list[Report] = []
        for version in versions:
            report = self._missing(version) if len(versions) > 1 else None
            if report is None:
                wanted = msgspec.structs.replace(order, python=version)
                report = self._run_once(slot, wanted, should_stop)
            reports.append(report)
            if report.status is not Status.PASSED or is_last or should_stop():
                self._screen.write(render_results(report) + ("\n" if len(versions) > 1 else ""))
            if should_stop():
                break
        return reports

    def _run_once(self, slot: Slot, order: Order, should_stop: Callable[[], bool]) -> Report:
        started_at = datetime.now(UTC)
        with self._screen.watching(should_stop) as watch:
            findings = test_tree(self._tree, slot, self._settings, order, watch)
        return _report(self._tree, _explained(findings, order), order.python, started_at)

    def _missing(self, version: str) -> Report | None:
        """The report of a version that is not on this machine; None when it is."""
        try:
            pick_interpreter(version, [], self._settings)
        except UsageError as error:
            self._screen.introduce({"Environment": f"Python {version}"})
            findings = Findings(status=Status.INFRA_ERROR, reason=str(error))
            return _report(self._tree, findings, version, datetime.now(UTC))
        return None

    def _named(self) -> list[str]:
        """The versions that the tree names; none when its configuration is unusable, which its run tells."""
        try:
            return named_pythons(self._tree.path, self._settings.limits)
        except ProjectError:
            return []

    def _sum_up(self, reports: Sequence[Report], named: Sequence[str]) -> None:
        """Say in a line what became of each version, or which others the project names."""
        if len(reports) > 1:
            said = [f"Python {version_of(report.environment)} {report.status.value}" for report in reports]
            self._screen.write("; ".join(said) + "\n")
        tried = {report.python.rpartition(".")[0] for report in reports}
        others = [version for version in named if version not in tried]
        if len(reports) == 1 and reports[0].python and others:
            untried = escape_line(" and ".join(others))
            self._screen.write(f"The project names Python {untried} too; `--python all` runs each.\n")


def _called(tree: WorkingTree) -> str:
    """The tree as people know it: its folder, and the commit that it stands on."""
    if tree.head is None:
        return str(tree.path)
    return f"{tree.path}, {tree.head.commit[:SHORT_COMMIT]}" + ("" if tree.is_clean else " with changes")


def _explained(findings: Findings, order: Order) -> Findings:
    """A part of the tests that turns out to be none says so."""
    if findings.status is not Status.NO_TESTS or (order.only is None and not order.names):
        return findings
    wanted = [f"has {' or '.join(map(repr, order.names))} in its name"] if order.names else []
    wanted += ["is among those that failed"] if order.only is not None else []
    return msgspec.structs.replace(findings, reason=f"no test {' and '.join(wanted)}; run all of them")


def _report(tree: WorkingTree, findings: Findings, version: str, started_at: datetime) -> Report:
    head = tree.head
    return Report(
        **{name: getattr(findings, name) for name in Findings.__struct_fields__},
        repo=tree.path.name,
        commit=head.commit if head else "",
        tree=head.tree if head and tree.is_clean else "",
        refs=head.refs if head else (),
        author=head.author if head else "",
        subject=head.subject if head else "",
        environment=environment_of(version) if version else DEFAULT,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        counts=count_outcomes(findings.tests),
    )
