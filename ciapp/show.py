"""How the command line shows what the ledger knows: for people, and as JSON documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ciapp.errors import UsageError
from ciapp.outlets.junit import to_junit
from ciapp.outlets.terminal import escape_line, format_duration
from ciapp.outlets.text import LETTERS
from ciapp.progress import progress_text
from ciapp.results.history import LoggedCommit
from ciapp.results.matrix import DEFAULT, needed_for, version_of
from ciapp.results.outcomes import PastTest
from ciapp.results.overall import most_telling, overall
from ciapp.results.pushes import KnownRepository
from ciapp.results.queue import QueueCounts, total, unserved
from ciapp.results.report import SCHEMA, Report, State, to_json_types
from ciapp.results.runs import Run
from ciapp.results.workers import Worker, served


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
                **_overall_document(commit.runs),
                "runs": [_run_document(run) for run in commit.runs],
            }
            for commit in commits
        ],
    }


def report_document(runs: Sequence[Run], reports: Sequence[Report]) -> dict[str, Any]:
    """`ciapp report --json`: the report; of several runs, all of them in one document."""
    if len(reports) == 1:
        return to_json_types(reports[0])
    return {
        "schema": SCHEMA,
        "repo": runs[0].repo,
        "commit": runs[0].commit,
        **_overall_document(runs),
        "runs": [to_json_types(report) for report in reports],
    }


def desk_document(reports: Sequence[Report]) -> dict[str, Any]:
    """`ciapp run --json`: in the same shape."""
    if len(reports) == 1:
        return to_json_types(reports[0])
    return {
        "schema": SCHEMA,
        "repo": reports[0].repo,
        "commit": reports[0].commit,
        "state": State.FINISHED.value,
        "status": most_telling(report.status for report in reports).value,
        "runs": [to_json_types(report) for report in reports],
    }


def reproduction_document(report: Report, machine: Sequence[str], outcome: Sequence[str]) -> dict[str, Any]:
    """`ciapp reproduce --json`: the report, and how it compares with the recorded one."""
    return to_json_types(report) | {
        "machine_differences": list(machine),
        "outcome_differences": list(outcome),
    }


def history_document(repo: str, tests: Sequence[PastTest]) -> dict[str, Any]:
    """`ciapp history --json`."""
    return {"schema": SCHEMA, "repo": repo, "tests": [msgspec.to_builtins(test) for test in tests]}


def render_history(tests: Sequence[PastTest], wanted: str, runs: int) -> str:
    """`ciapp history` for people: of one test a line per run, of several a line per test; newest first."""
    if not tests:
        lines = [f"no test of the last {_count_runs(runs)} has {wanted!r} in its id; see `ciapp report`"]
    elif len(tests) == 1:
        [test] = tests
        lines = [f"{test.id}: not good in {test.bad} of {_count_runs(len(test.outcomes))}"]
        for one in test.outcomes:
            took = format_duration(one.duration_s) if one.duration_s is not None else ""
            said = f" ({one.message})" if one.message else ""
            where = f"[{one.environment}] " if one.environment != DEFAULT else ""
            lines.append(f"{one.outcome:18} {one.commit[:12]} {took:>8}  {where}{one.subject}{said}")
    else:
        worst_first = sorted(tests, key=lambda test: (-test.bad, test.id, test.ordinal))
        lines = [f"{len(tests)} tests, the newest of {_count_runs(runs)} first"]
        lines += [
            f"{''.join(LETTERS[one.outcome] for one in test.outcomes)} {test.id}" for test in worst_first
        ]
    return "\n".join(escape_line(line) for line in lines)


def _count_runs(number: int) -> str:
    return f"{number} run{'s' * (number != 1)}"


def status_document(
    counts: Mapping[str, QueueCounts],
    workers: Sequence[Worker],
    running: Sequence[Run],
    repositories: Sequence[KnownRepository],
) -> dict[str, Any]:
    """`ciapp status --json`."""
    return {
        "schema": SCHEMA,
        "queue": msgspec.to_builtins(total(counts)) | {"unserved": unserved(counts, served(workers))},
        "workers": [msgspec.to_builtins(worker) for worker in workers],
        "running": [{"repo": run.repo, "commit": run.commit} | _run_document(run) for run in running],
        "repositories": [{"name": one.name, "host": one.host} for one in repositories],
    }


def render_status(
    counts: Mapping[str, QueueCounts], workers: Sequence[Worker], running: Sequence[Run]
) -> str:
    """`ciapp status` for people."""
    all_counts = total(counts)
    lines = [f"queue: {all_counts.waiting + all_counts.sent} waiting, {all_counts.running} running"]
    for environment, number in unserved(counts, served(workers)).items():
        lines.append(f"queue: {number} of them for {needed_for(environment)}, which no worker has")
    for worker in workers:
        slots = "1 slot" if worker.slots == 1 else f"{worker.slots} slots"
        python = f"Python {worker.python}{named_versions(worker)}"
        lines.append(f"worker: {worker.name}, {slots}, {python}, sandbox {worker.sandbox}")
        if worker.hindrance:
            lines.append(f"worker: {worker.name} takes no run, for {worker.hindrance}")
    if not workers:
        lines.append("worker: none; start one with `ciapp up` or `ciapp worker`")
    for run in running:
        lines.append(f"testing: {run.repo} {run.commit[:12]} on {run.worker}: {progress_text(run)}")
    return "\n".join(escape_line(line) for line in lines)


def named_versions(worker: Worker) -> str:
    """The versions that a worker takes runs of, as the end of a phrase; empty for none."""
    versions = [version for environment in worker.environments if (version := version_of(environment))]
    return f" (and, for commits that name one, {', '.join(versions)})" if versions else ""


def write_junit(file: Path, *reports: Report) -> None:
    """The reports of a commit as JUnit XML. Raises UsageError when the file cannot be written."""
    try:
        file.write_bytes(to_junit(*reports))
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}; give --junit another file") from error


def _overall_document(runs: Sequence[Run]) -> dict[str, Any]:
    if not runs:
        return {"state": None, "status": None}
    whole = overall(runs)
    return {"state": whole.state.value, "status": whole.status.value if whole.status else None}


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
