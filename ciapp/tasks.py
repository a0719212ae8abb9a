"""Celery tasks: envelopes that turn ids into one call.

In:  a message that names a run and the attempt it wakes a worker up for.
Out: the attempt's report as plain JSON types, which the result backend stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from kombu.pools import producers

from ciapp.celery import app, run_queue, settings
from ciapp.connection import ANSWER_WITHIN_S, broker_errors
from ciapp.errors import BrokerError, CiError
from ciapp.results.matrix import needed_for
from ciapp.results.report import to_json_types
from ciapp.results.runs import Run, task_id
from ciapp.testing.pipeline import test_run


@app.task(name="ciapp.run_commit", bind=True, throws=(CiError,), resultrepr_maxsize=100)  # type: ignore[untyped-decorator]
def run_commit(self: Any, run_id: int, attempt: int) -> dict[str, Any] | None:
    """Test a run's commit; None when it was not this attempt's turn.

    Not `Ignore`, which sends no event: a monitor would show the task as started for ever.
    """
    report = test_run(run_id, attempt, worker=self.request.hostname, settings=settings)
    return to_json_types(report) if report is not None else None


def send_runs(runs: Sequence[Run]) -> None:
    """Send a message for the next attempt of each run. Raises BrokerError when the broker refuses."""
    try:
        with _senders().acquire(block=True) as producer:
            try:
                for run in runs:
                    _send(run, producer)
            except broker_errors(app.connection()):
                # Closed in good order, it would wait for each of RabbitMQ's answers to that.
                producer.connection.collect()
                raise
    except broker_errors(app.connection()) as error:
        raise BrokerError(
            f"broker {app.connection().as_uri()} does not take messages: {error}; see `ciapp doctor`"
        ) from error


def _send(run: Run, producer: Any) -> None:
    number = run.attempt + 1
    run_commit.apply_async(
        args=(run.id, number),
        task_id=task_id(run, number),
        argsrepr=_for_people(run),
        queue=run_queue(settings, run.environment),
        producer=producer,
        retry=False,
    )


@cache
def _senders() -> Any:
    """Producers on connections that wait for each answer for a while only.

    RabbitMQ may be there and not answer: it is out of memory, stopped, or cut off. A worker's connection
    waits for messages instead, and must not be bounded so.
    """
    bounds = {"read_timeout": ANSWER_WITHIN_S, "write_timeout": ANSWER_WITHIN_S, "max_retries": 0}
    return producers[app.connection_for_write(transport_options=bounds)]


def _for_people(run: Run) -> str:
    """What monitors show of a message, which says for what a run waits that nobody takes."""
    return f"{run.repo} {run.commit[:12]}, {needed_for(run.environment)}"
