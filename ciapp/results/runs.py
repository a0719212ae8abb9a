"""The life of a run: claimed, kept by its worker's beats, finished; or lost, and queued again.

In:  a run's id and the number of the attempt that speaks, which is its fencing token.
Out: rows changed by compare-and-set: a write whose attempt is no longer the run's latest is refused.

A message that is delivered twice, late or never does no harm: it names one attempt, and an attempt can be
claimed once. Time plays no part in it: a lease ends when the dispatcher saw no beat for long enough on its
own clock (`ciapp.intake.leases`), and what ends it is a compare-and-set as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import BindParameter, Row, Select, Update, bindparam, false, select, update

from ciapp.results import schema
from ciapp.results.attempts import end_attempt, endings_before
from ciapp.results.database import Database, outlast_conflicts, stored_text
from ciapp.results.report import State, Status

Parameter = BindParameter[Any]
RETRY_AFTER_S = (0, 5, 30)  #: how long a run waits after its first, second, … lost attempt
#: How long a run waits each time that its repository is away: some ten minutes in all.
AWAY_PAUSES_S = (1, 2, 4, 8, 15, 30, *8 * (60,))


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run with what its report says of the commit."""

    id: int
    repo: str
    host: str  #: the machine that the repository is on
    git_dir: str  #: on that machine
    commit: str
    tree: str
    parents: tuple[str, ...]
    refs: tuple[str, ...]
    author: str
    subject: str
    environment: str
    ref: str
    priority: int
    state: State
    status: Status | None
    reason: str
    attempt: int  #: the latest attempt's number, its fencing token
    tries: int
    worker: str
    beat: int
    queued_at: datetime
    sent_token: int  #: the attempt that a message was last sent for
    sends: int  #: messages sent for it
    sent_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None
    counts: dict[str, int]
    tests_known: int
    tests_done: int
    tests_failed: int
    is_fresh: bool  #: whether no other run's result may stand in for its own
    reused_from: str  #: the commit whose result it has; empty: its tests were run

    @property
    def task_id(self) -> str:
        """Celery's id of the latest attempt's task, for people to read; `parse_task_id` reverses it."""
        return task_id(self, self.attempt)


def task_id(run: Run, attempt: int) -> str:
    """ "team:d4e5f6a1b2c3:17:1": repository, short commit, run, attempt."""
    return f"{run.repo}:{run.commit[:12]}:{run.id}:{attempt}"


def parse_task_id(text: str) -> tuple[int, int] | None:
    """Run id and attempt of a task id of ours; None for any other."""
    parts = text.split(":")
    if len(parts) != 4 or not (parts[2].isdecimal() and parts[3].isdecimal()):
        return None
    return int(parts[2]), int(parts[3])


@outlast_conflicts
def claim_run(
    database: Database, run_id: int, *, attempt: int, worker: str, at: datetime | None = None
) -> Run | None:
    """Begin an attempt; None when it is not this attempt's turn, whatever the reason.

    Who did not hear the answer asks again with the same moment `at`, and gets what was claimed then.
    """
    now = at or datetime.now(UTC)
    with database.write() as connection:
        claimed = connection.execute(
            _claim(), {"of_run": run_id, "before": attempt - 1, "attempt": attempt, "by": worker, "at": now}
        )
        if not claimed.rowcount:
            mine = (schema.runs.c.worker == worker, schema.runs.c.started_at == now)
            row = connection.execute(select_runs().where(*held(run_id, attempt), *mine)).one_or_none()
            return as_run(row) if row is not None else None
        first_facts = {"run_id": run_id, "number": attempt, "worker": worker, "started_at": now, "ending": ""}
        connection.execute(schema.attempts.insert(), first_facts)
        return as_run(connection.execute(_by_id(), {"of_run": run_id}).one())


@cache
def _claim() -> Update:
    """A run that waits after attempt `before` is attempt `attempt`'s from now on."""
    runs = schema.runs.c
    return (
        update(schema.runs)
        .where(
            runs.id == bindparam("of_run"),
            runs.state == State.QUEUED,
            runs.token == bindparam("before"),
        )
        .values(
            state=State.RUNNING,
            token=bindparam("attempt"),
            tries=runs.tries + 1,
            worker=bindparam("by"),
            beat=runs.beat + 1,
            beat_at=bindparam("at"),
            started_at=bindparam("at"),
            not_before=None,
            tests_known=0,
            tests_done=0,
            tests_failed=0,
        )
    )


@cache
def _by_id() -> Select[Any]:
    return select_runs().where(schema.runs.c.id == bindparam("of_run"))


@outlast_conflicts
def beat_run(database: Database, run_id: int, *, attempt: int, known: int, done: int, failed: int) -> bool:
    """Keep the lease and tell of progress; False when the run is no longer this attempt's."""
    with database.write() as connection:
        kept = connection.execute(
            update(schema.runs)
            .where(*held(run_id, attempt))
            .values(
                beat=schema.runs.c.beat + 1,
                beat_at=datetime.now(UTC),
                tests_known=known,
                tests_done=done,
                tests_failed=failed,
            )
        )
        return bool(kept.rowcount)


def await_writes(database: Database) -> None:
    """Return once a beat could be told, which nobody keeps from it then. Raises LedgerError."""
    with database.write() as connection:
        connection.execute(_write_nothing())


@cache
def _write_nothing() -> Update:
    """No row changes, yet it waits for whoever has locked the runs, as a beat does."""
    return update(schema.runs).where(false()).values(beat=schema.runs.c.beat)


@outlast_conflicts
def lose_attempt(
    database: Database,
    run_id: int,
    *,
    attempt: int,
    reason: str,
    tries: int,
    forgiven: bool = False,
    away: bool = False,
    beat: int | None = None,
) -> bool:
    """End an attempt without a report: the run is queued again, or after `tries` ends as infra-error.

    A forgiven attempt (its worker was stopped in good order) is not counted, and followed at once. Neither is
    one whose repository was away, until AWAY_PAUSES_S are used up.
    False when the run is no longer that attempt's, or has beaten since `beat`; nothing is changed then.
    """
    now = datetime.now(UTC)
    with database.write() as connection:
        is_same = held(run_id, attempt) + (() if beat is None else (schema.runs.c.beat == beat,))
        row = connection.execute(select_runs().where(*is_same)).one_or_none()
        if row is None:
            return False
        run = as_run(row)
        wait_s = 0 if forgiven else RETRY_AFTER_S[min(run.tries, len(RETRY_AFTER_S)) - 1]
        absences = connection.scalar(select(schema.runs.c.absences).where(schema.runs.c.id == run_id)) or 0
        if away and absences < len(AWAY_PAUSES_S):
            forgiven, wait_s, absences = True, AWAY_PAUSES_S[absences], absences + 1
        if forgiven or run.tries < tries:
            values: dict[str, Any] = {
                "state": State.QUEUED,
                "reason": stored_text(reason),
                "worker": "",
                "tries": run.tries - forgiven,
                "absences": absences,
                "not_before": now + timedelta(seconds=wait_s),
            }
        else:
            before = endings_before(connection, run.id, run.attempt, run.tries)
            values = {
                "state": State.FINISHED,
                "status": Status.INFRA_ERROR.value,
                "reason": f"{run.tries} attempts were lost: {before}{stored_text(reason)}",
                "finished_at": now,
            }
        changed = connection.execute(update(schema.runs).where(*is_same).values(values))
        if changed.rowcount:
            end_attempt(connection, run_id, attempt, reason)
        return bool(changed.rowcount)


@outlast_conflicts
def cancel_run(database: Database, run_id: int) -> bool:
    """End a run that has not finished; False when it has. Its worker hears of it at the next beat."""
    with database.write() as connection:
        cancelled = connection.execute(
            update(schema.runs)
            .where(schema.runs.c.id == run_id, schema.runs.c.state != State.FINISHED)
            .values(
                state=State.FINISHED,
                status=Status.CANCELLED.value,
                reason="cancelled by request",
                finished_at=datetime.now(UTC),
            )
        )
        if cancelled.rowcount:
            token = connection.scalar(select(schema.runs.c.token).where(schema.runs.c.id == run_id))
            end_attempt(connection, run_id, token or 0, "cancelled")
        return bool(cancelled.rowcount)


def find_runs(database: Database, repository: str, commits: Sequence[str]) -> list[Run]:
    """The runs of these commits of a repository, in every environment."""
    found = []
    with database.read() as connection:
        for start in range(0, len(commits), 500):
            query = select_runs().where(
                schema.repositories.c.name == repository,
                schema.runs.c.commit.in_(commits[start : start + 500]),
            )
            found += [as_run(row) for row in connection.execute(query.order_by(schema.runs.c.id))]
    return found


def get_run(database: Database, run_id: int) -> Run | None:
    """One run by its id; None when the ledger has none."""
    with database.read() as connection:
        row = connection.execute(_by_id(), {"of_run": run_id}).one_or_none()
        return as_run(row) if row is not None else None


def running_runs(database: Database) -> list[Run]:
    """Every run that some worker holds."""
    with database.read() as connection:
        query = select_runs().where(schema.runs.c.state == State.RUNNING)
        return [as_run(row) for row in connection.execute(query)]


def held(run_id: int | Parameter, attempt: int | Parameter) -> tuple[Any, ...]:
    """The condition that a run is this attempt's, and still runs."""
    return (
        schema.runs.c.id == run_id,
        schema.runs.c.token == attempt,
        schema.runs.c.state == State.RUNNING,
    )


def select_runs() -> Select[Any]:
    """Runs with their repository's and commit's facts, as `as_run` takes them."""
    runs, commits, repositories = schema.runs, schema.commits, schema.repositories
    return select(
        runs,
        repositories.c.name.label("repo"),
        repositories.c.host,
        repositories.c.git_dir,
        commits.c.tree,
        commits.c.parents,
        commits.c.refs,
        commits.c.author,
        commits.c.subject,
    ).select_from(
        runs.join(repositories, repositories.c.id == runs.c.repository_id).join(
            commits,
            (commits.c.repository_id == runs.c.repository_id) & (commits.c.commit == runs.c.commit),
        )
    )


def as_run(row: Row[Any]) -> Run:
    """A row of `select_runs` as a value."""
    return Run(
        id=row.id,
        repo=row.repo,
        host=row.host,
        git_dir=row.git_dir,
        commit=row.commit,
        tree=row.tree,
        parents=tuple(row.parents.split()),
        refs=tuple(row.refs),
        author=row.author,
        subject=row.subject,
        environment=row.environment,
        ref=row.ref,
        priority=row.priority,
        state=State(row.state),
        status=Status(row.status) if row.status else None,
        reason=row.reason,
        attempt=row.token,
        tries=row.tries,
        worker=row.worker,
        beat=row.beat,
        queued_at=row.queued_at,
        sent_token=row.sent_token,
        sends=row.sends,
        sent_at=row.sent_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        duration_s=row.duration_s,
        counts=row.counts,
        tests_known=row.tests_known,
        tests_done=row.tests_done,
        tests_failed=row.tests_failed,
        is_fresh=row.fresh,
        reused_from=row.reused_from,
    )
