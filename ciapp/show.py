"""How the command line shows runs: as lines, as a progress bar, as JSON documents."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ciapp.errors import NoSuchRunError, UsageError
from ciapp.outlets.junit import to_junit
from ciapp.outlets.terminal import escape_line, format_duration
from ciapp.outlets.text import LETTERS, LogLine
from ciapp.results.database import Database
from ciapp.results.history import LoggedCommit
from ciapp.results.order import DEFERRED
from ciapp.results.outcomes import PastTest
from ciapp.results.pushes import KnownRepository, seen_refs
from ciapp.results.queue import QueueCounts
from ciapp.results.report import SCHEMA, Report, State
from ciapp.results.runs import Run, get_run
from ciapp.results.workers import Worker

LOOK_EVERY_S = 0.1


def progress_text(run: Run, refs: Mapping[str, str] | None = None) -> str:
    """Where an unfinished run is: "queued", "running 34/120, 1 failed".

    `refs` are the last seen values of the repository's refs: what a deferred run waits behind.
    """
    if run.state is State.QUEUED:
        newer = (refs or {}).get(run.ref, "")[:12] or "a newer push"
        words = f"deferred behind {newer}" if run.priority == DEFERRED else "queued"
        return f"{words}, after a lost attempt: {run.reason}" if run.reason else words
    if not run.tests_known:
        return "running"
    failed = f", {run.tests_failed} failed" if run.tests_failed else ""
    return f"running {run.tests_done}/{run.tests_known}{failed}"


def run_line(run: Run, refs: Mapping[str, str] | None = None) -> LogLine:
    """A run as one line of `ciapp log`; `refs` as for `progress_text`."""
    notes = [] if run.environment == "default" else [run.environment]
    if run.state is not State.FINISHED:
        notes.append(progress_text(run, refs))
    else:
        notes += [f"attempt {run.attempt}"] if run.attempt > 1 else []
        notes += [f"reused from {run.reused_from[:12]}"] if run.reused_from else []
    return LogLine(
        commit=run.commit,
        state=run.state,
        status=run.status,
        counts=run.counts,
        duration_s=run.duration_s,
        subject=run.subject,
        note=", ".join(notes),
    )


def log_lines(commit: LoggedCommit, refs: Mapping[str, str] | None = None) -> list[LogLine]:
    """A commit as lines of `ciapp log`, one for each of its runs, at least one; `refs` as above."""
    if commit.runs:
        return [run_line(run, refs) for run in commit.runs]
    return [
        LogLine(
            commit=commit.commit,
            state=None,
            status=None,
            counts={},
            duration_s=None,
            subject=commit.subject,
            note="purged" if commit.is_purged else "not tested",
        )
    ]


def newer_tips(database: Database, repository: KnownRepository, runs: Iterable[Run]) -> Mapping[str, str]:
    """The values of refs that `progress_text` needs to speak of these runs; mostly none."""
    if any(run.state is State.QUEUED and run.priority == DEFERRED for run in runs):
        return seen_refs(database, repository.id)
    return {}


def log_document(repo: str, commits: Sequence[LoggedCommit]) -> dict[str, Any]:
    """`ciapp log --json`."""
    return {
        "schema": SCHEMA,
        "repo": repo,
        "commits": [
            {
                "commit": commit.commit,
                "author": commit.author,
                "subject": commit.subject,
                "runs": [_run_document(run) for run in commit.runs],
            }
            for commit in commits
        ],
    }


def history_document(repo: str, tests: Sequence[PastTest]) -> dict[str, Any]:
    """`ciapp history --json`."""
    return {"schema": SCHEMA, "repo": repo, "tests": [msgspec.to_builtins(test) for test in tests]}


def render_history(tests: Sequence[PastTest], runs: int) -> str:
    """`ciapp history` for people: of one test a line per run, of several a line per test; newest first."""
    if not tests:
        lines = [f"no test with that in its id in {runs} runs"]
    elif len(tests) == 1:
        [test] = tests
        lines = [f"{test.id}: not good in {test.bad} of {len(test.outcomes)} runs"]
        for one in test.outcomes:
            took = format_duration(one.duration_s) if one.duration_s is not None else ""
            said = f" ({one.message})" if one.message else ""
            lines.append(f"{one.outcome:18} {one.commit[:12]} {took:>8}  {one.subject}{said}")
    else:
        worst_first = sorted(tests, key=lambda test: (-test.bad, test.id, test.ordinal))
        lines = [f"{len(tests)} tests, the newest of {runs} runs first"]
        lines += [
            f"{''.join(LETTERS[one.outcome] for one in test.outcomes)} {test.id}" for test in worst_first
        ]
    return "\n".join(escape_line(line) for line in lines)


def status_document(
    counts: QueueCounts,
    workers: Sequence[Worker],
    running: Sequence[Run],
    repositories: Sequence[KnownRepository],
) -> dict[str, Any]:
    """`ciapp status --json`."""
    return {
        "schema": SCHEMA,
        "queue": msgspec.to_builtins(counts),
        "workers": [msgspec.to_builtins(worker) for worker in workers],
        "running": [{"repo": run.repo, "commit": run.commit} | _run_document(run) for run in running],
        "repositories": [{"name": one.name, "host": one.host} for one in repositories],
    }


def render_status(counts: QueueCounts, workers: Sequence[Worker], running: Sequence[Run]) -> str:
    """`ciapp status` for people."""
    lines = [f"queue: {counts.waiting + counts.sent} waiting, {counts.running} running"]
    for worker in workers:
        slots = "1 slot" if worker.slots == 1 else f"{worker.slots} slots"
        lines.append(f"worker: {worker.name}, {slots}, Python {worker.python}, sandbox {worker.sandbox}")
    if not workers:
        lines.append("worker: none; start one with `ciapp up` or `ciapp worker`")
    for run in running:
        lines.append(f"testing: {run.repo} {run.commit[:12]} on {run.worker}: {progress_text(run)}")
    return "\n".join(escape_line(line) for line in lines)


def watch_run(
    database: Database, run: Run, deadline: float | None = None, refs: Mapping[str, str] | None = None
) -> Run:
    """Show a run going on until it has finished, and return it as it is then; `refs` as for `progress_text`.

    Raises NoSuchRunError when the deadline (monotonic) passes first, or the run is deleted.
    """
    title = f"{run.repo} {run.commit[:12]}"
    with click.progressbar(
        length=1, label=title, file=sys.stderr, show_eta=False, item_show_func=lambda text: text
    ) as bar:
        while run.state is not State.FINISHED:
            if deadline is not None and time.monotonic() > deadline:
                raise NoSuchRunError(f"commit {run.commit[:12]} of {run.repo} is still {progress_text(run)}")
            bar.length = max(run.tests_known, 1)
            bar.pos = min(run.tests_done, bar.length)
            bar.current_item = escape_line(progress_text(run, refs))
            bar.render_progress()
            time.sleep(LOOK_EVERY_S)
            found = get_run(database, run.id)
            if found is None:
                raise NoSuchRunError(f"the run of {title} is gone from the ledger; was it purged?")
            run = found
        bar.length = bar.pos = max(run.tests_known, 1)
        bar.current_item = f"{run.status} in {format_duration(run.duration_s or 0.0)}"
        bar.render_progress()
    return run


def write_junit(file: Path, report: Report) -> None:
    """The report as JUnit XML. Raises UsageError when the file cannot be written."""
    try:
        file.write_bytes(to_junit(report))
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}; give --junit another file") from error


def _run_document(run: Run) -> dict[str, Any]:
    return {
        "environment": run.environment,
        "state": run.state.value,
        "status": run.status.value if run.status else None,
        "reason": run.reason,
        "attempt": run.attempt,
        "counts": run.counts,
        "duration_s": run.duration_s,
        "task_id": run.task_id if run.attempt else None,
        "worker": run.worker,
        "tests_known": run.tests_known,
        "tests_done": run.tests_done,
        "tests_failed": run.tests_failed,
        "reused_from": run.reused_from or None,
    }
