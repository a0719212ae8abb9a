"""A commit's runs together: in one line, and as a bar while they go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence

import click
import msgspec

from ciapp.errors import NoSuchRunError
from ciapp.outlets.terminal import escape_line, format_duration
from ciapp.outlets.text import LogLine
from ciapp.results.database import Database
from ciapp.results.history import LoggedCommit, NotInLedgerError, refs_with, resolve_revision, runs_of
from ciapp.results.matrix import DEFAULT, needed_for, version_of
from ciapp.results.order import DEFERRED
from ciapp.results.overall import Overall, overall
from ciapp.results.pushes import KnownRepository, find_repository, has_commit, seen_refs
from ciapp.results.report import State
from ciapp.results.runs import Run, find_runs
from ciapp.results.workers import list_workers, served
from ciapp.settings import Settings

APPEARS_WITHIN_S = 15.0  #: how long a commit that was pushed may take to reach the ledger
LOOK_EVERY_S = 0.1
PINS = "refs/ciapp/"  #: a commit that was forced away may be below these alone, and is tested


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """Why runs wait."""

    refs: Mapping[
        str, str
    ] = {}  #: the last seen values of the repository's refs: what deferred runs wait behind
    unserved: frozenset[str] = frozenset()  #: environments that no worker takes
    to_come: frozenset[str] = frozenset()  #: commits that the dispatcher has yet to take in


NOTHING = Waits()


def why_waiting(
    database: Database,
    repository: KnownRepository,
    runs: Iterable[Run],
    to_come: frozenset[str] = NOTHING.to_come,
) -> Waits:
    """What there is to say of these runs if they wait, and of commits that are still to get theirs."""
    waiting = [run for run in runs if run.state is State.QUEUED]
    environments = {run.environment for run in waiting}
    return Waits(
        refs=seen_refs(database, repository.id) if any(run.priority == DEFERRED for run in waiting) else {},
        unserved=frozenset(environments - served(list_workers(database)) if waiting else ()),
        to_come=to_come,
    )


def progress_text(run: Run, waits: Waits = NOTHING) -> str:
    """Where an unfinished run is: "queued", "running 34/120, 1 failed"."""
    if run.state is State.QUEUED:
        words = "queued"
        if run.environment in waits.unserved:
            words = _waits_for([run.environment])
        elif run.priority == DEFERRED:
            words = f"deferred behind {waits.refs.get(run.ref, '')[:12] or 'a newer push'}"
        return f"{words}, after a lost attempt: {run.reason}" if run.reason else words
    return _running(overall([run]))


def progress_of_all(runs: Sequence[Run], waits: Waits = NOTHING) -> str:
    """The same of a commit's runs: "3.10, 3.11 passed; 3.13 running 34/120"."""
    if len(runs) == 1:
        return progress_text(runs[0], waits)
    return "; ".join(f"{names} {text}" for text, names in _grouped(runs, waits).items())


def log_line(commit: LoggedCommit, waits: Waits = NOTHING) -> LogLine:
    """A commit as one line of `ciapp log`."""
    if commit.runs:
        return runs_line(commit.runs, waits)
    note = "purged" if commit.is_purged else "not tested"
    if commit.commit in waits.to_come:
        note = "pushed, not taken in yet"
    return LogLine(commit=commit.commit, subject=commit.subject, note=note)


def runs_line(runs: Sequence[Run], waits: Waits = NOTHING) -> LogLine:
    """The runs of a commit, at least one, as one line."""
    first, whole = runs[0], overall(runs)
    if len(runs) > 1:
        groups = _grouped(runs, waits)
        # What all runs are is said by the line's status.
        is_said = whole.status is not None and list(groups) == [whole.status.value]
        notes = list(groups.values()) if is_said else [progress_of_all(runs, waits)]
    else:
        notes = [] if first.environment == DEFAULT else [first.environment]
        if whole.status is None:
            notes.append(progress_text(first, waits))
        else:
            notes += [f"attempt {first.attempt}"] if first.tries > 1 else []
            notes += [f"reused from {first.reused_from[:12]}"] if first.reused_from else []
    return LogLine(
        commit=first.commit,
        state=whole.state,
        status=whole.status,
        counts=whole.counts,
        duration_s=whole.duration_s,
        subject=first.subject,
        note=", ".join(notes),
    )


def await_runs(
    database: Database, name: str, revision: str, settings: Settings, deadline: float | None = None
) -> tuple[KnownRepository, list[Run]]:
    """The runs of a commit that may have been pushed this moment, at least one.

    Raises UsageError when nothing of that name appears, NoSuchRunError when the commit is not to be tested.
    """
    repository = find_repository(database, name)
    appears = time.monotonic() + APPEARS_WITHIN_S
    appears = appears if deadline is None else min(appears, deadline)
    looked_at = ""
    while True:
        try:
            commit = resolve_revision(database, repository, revision, settings.host_name)
            # A commit that the ledger has, and no run of it, was pushed and is not to be tested.
            if has_commit(database, repository.id, commit):
                return repository, runs_of(database, repository, commit)
            if time.monotonic() > appears:
                raise NoSuchRunError(
                    f"commit {commit[:12]} of {name} is not in the ledger; see `ciapp doctor` if it was just "
                    f"pushed, or queue it with `ciapp rerun {name} {commit[:12]}`"
                )
            if commit != looked_at:
                _refuse_untested(settings, repository, commit)
                looked_at = commit
        except NotInLedgerError:
            if time.monotonic() > appears:
                raise
        time.sleep(LOOK_EVERY_S)


def _refuse_untested(settings: Settings, repository: KnownRepository, commit: str) -> None:
    """Raises NoSuchRunError for a commit that is on refs alone whose pushes are not tested."""
    name, refs = repository.name, refs_with(repository, commit, settings.host_name)
    if refs and all(settings.ref_policy(name, ref) == "off" and not ref.startswith(PINS) for ref in refs):
        others = f" and {len(refs) - 1} more" if len(refs) > 1 else ""
        raise NoSuchRunError(
            f"commit {commit[:12]} of {name} is on {refs[0]}{others} alone, and nothing that is pushed there "
            f"is tested ([repository.{name}.refs]); queue it with `ciapp rerun {name} {commit[:12]}`"
        )


def watch_runs(
    database: Database, repository: KnownRepository, runs: Sequence[Run], deadline: float | None = None
) -> list[Run]:
    """Show a commit's runs going on until all have finished, and return them as they are then.

    Raises NoSuchRunError when the deadline (monotonic) passes first, or the runs are deleted.
    """
    runs, commit = list(runs), runs[0].commit
    title = f"{repository.name} {commit[:12]}"
    with click.progressbar(
        length=1, label=title, file=sys.stderr, show_eta=False, item_show_func=lambda text: text
    ) as bar:
        while (whole := overall(runs)).status is None:
            waits = why_waiting(database, repository, runs)
            if deadline is not None and time.monotonic() > deadline:
                raise NoSuchRunError(
                    f"commit {commit[:12]} of {repository.name} has not finished in time: "
                    f"{progress_of_all(runs, waits)}; see `ciapp status`"
                )
            bar.length = max(whole.tests_known, 1)
            bar.pos = min(whole.tests_done, bar.length)
            bar.current_item = escape_line(_bar_text(runs, whole, waits))
            bar.render_progress()
            time.sleep(LOOK_EVERY_S)
            watched = {run.id for run in runs}
            runs = [run for run in find_runs(database, repository.name, [commit]) if run.id in watched]
            if len(runs) < len(watched):
                raise NoSuchRunError(f"a run of {title} is gone from the ledger; was it purged?")
        bar.length = bar.pos = max(whole.tests_known, 1)
        bar.current_item = f"{whole.status} in {format_duration(whole.duration_s or 0.0)}"
        bar.render_progress()
    return runs


def _bar_text(runs: Sequence[Run], whole: Overall, waits: Waits) -> str:
    if len(runs) == 1:
        return progress_text(runs[0], waits)
    finished = sum(run.state is State.FINISHED for run in runs)
    words = [_running(whole), f"{finished} of {len(runs)} runs finished"]
    unserved = [run.environment for run in runs if run.environment in waits.unserved]
    words += [_waits_for(unserved)] if unserved else []
    return ", ".join(words)


def _waits_for(unserved: Sequence[str]) -> str:
    needed = " and ".join(needed_for(environment) for environment in unserved if version_of(environment))
    return f"waits for a worker with {needed}" if needed else "waits for a worker"


def _running(whole: Overall) -> str:
    if not whole.tests_known:
        return "running"
    failed = f", {whole.tests_failed} failed" if whole.tests_failed else ""
    return f"running {whole.tests_done}/{whole.tests_known}{failed}"


def _grouped(runs: Sequence[Run], waits: Waits) -> dict[str, str]:
    """What is to be said of runs → the names of those of which it is."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        text = _status_text(run) if run.status else progress_text(run, waits)
        groups.setdefault(text, []).append(version_of(run.environment) or run.environment)
    return {text: ", ".join(names) for text, names in groups.items()}


def _status_text(run: Run) -> str:
    assert run.status is not None
    return run.status.value + (f" (reused from {run.reused_from[:12]})" if run.reused_from else "")
