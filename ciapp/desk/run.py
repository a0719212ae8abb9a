"""`ciapp run`: a working tree's tests on the user's own terminal.

In:  a folder, and which of its tests are wanted how often.
Out: letters or lines while tests run, then the report; the verdict.

No server and no ledger take part.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ciapp.desk.screen import Screen, stopping
from ciapp.outlets.terminal import format_duration
from ciapp.outlets.text import SHORT_COMMIT, render_results
from ciapp.results.report import Findings, Report, Status, count_outcomes, to_json_types
from ciapp.settings import Settings
from ciapp.show import write_junit
from ciapp.testing.desk import Order, take_desk_slot, test_tree
from ciapp.testing.failed import load_failed, save_failed, still_failed
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
        report = desk.run(order, only_failed=only_failed, times=times, should_stop=should_stop)
    if junit is not None:
        write_junit(junit, report)
    if as_json:
        click.echo(json.dumps(to_json_types(report), indent=2))
    return report.status


class _Desk:
    """One call of `ciapp run`."""

    def __init__(self, tree: WorkingTree, settings: Settings, screen: Screen) -> None:
        self._tree = tree
        self._settings = settings
        self._screen = screen
        self._memory = settings.state_path / "desk" / "failed" / f"{tree.key}.json"

    def run(self, order: Order, *, only_failed: bool, times: int, should_stop: Callable[[], bool]) -> Report:
        """Run up to so many times, until it does not pass; the last run's report, which is printed too."""
        failed = load_failed(self._memory)
        if only_failed and failed:
            order = msgspec.structs.replace(order, only=failed.tests, scopes=failed.scopes)
        elif only_failed:
            self._screen.write("Nothing failed when it last ran, so all tests run.\n")
        self._screen.introduce({"Tree": _called(self._tree)})  # an environment may take its time
        slot = take_desk_slot(self._settings)
        try:
            for number in range(1, times + 1):
                report = self._run_once(slot, order, should_stop)
                failed = still_failed(failed, report, was_part=bool(order.names))
                save_failed(self._memory, failed)
                if report.status is not Status.PASSED or number == times or should_stop():
                    break
                took = format_duration(report.duration_s)
                self._screen.write(f"Run {number} of at most {times} passed in {took}.\n")
        finally:
            slot.release()
        self._screen.write(render_results(report))
        return report

    def _run_once(self, slot: Slot, order: Order, should_stop: Callable[[], bool]) -> Report:
        started_at = datetime.now(UTC)
        with self._screen.watching(should_stop) as watch:
            findings = test_tree(self._tree, slot, self._settings, order, watch)
        return _report(self._tree, _explained(findings, order), started_at)


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


def _report(tree: WorkingTree, findings: Findings, started_at: datetime) -> Report:
    head = tree.head
    return Report(
        **{name: getattr(findings, name) for name in Findings.__struct_fields__},
        repo=tree.path.name,
        commit=head.commit if head else "",
        tree=head.tree if head and tree.is_clean else "",
        refs=head.refs if head else (),
        author=head.author if head else "",
        subject=head.subject if head else "",
        started_at=started_at,
        finished_at=datetime.now(UTC),
        counts=count_outcomes(findings.tests),
    )
