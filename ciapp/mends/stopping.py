"""Let a worker stop as soon as its tasks allow, also when one of them was only just given out.

In:  the worker's pool, at its stop.
Out: tasks that a pool process was given, and has not said to have begun, are waited for or cancelled like
     those that it has.

Seen with Celery 5.7.0: between the moment that a pool process is given a task and the moment that it says to
have begun, a few milliseconds, the worker takes the task for one that nobody was given.
- SIGTERM in that time: the worker forgets the task, which is done all the same; its result is not heard, its
  message not acknowledged, and the process waits 30 s for its result to be heard before it ends.
- SIGQUIT in that time: the task is not cancelled, and the worker waits for its end.
"""

# mypy: disable-error-code="no-untyped-call"
# celery has no types.

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def wait_for_given(pool: Any) -> None:
    """Have the pool wait for the tasks that its processes were given, when it is told to forget them."""
    for job in _given(pool):
        job.discard = _keep


def cancel_given(pool: Any) -> None:
    """Cancel the tasks that its processes were given, each as soon as it is begun."""
    for job in _given(pool):
        job._accept_callback = _then_cancel(job._accept_callback, pool)


def _given(pool: Any) -> list[Any]:
    """The jobs that were written to a process, whose answer is not read."""
    # Only a pool of processes has such jobs.
    cache = getattr(getattr(pool, "_pool", None), "_cache", {})
    return [job for job in tuple(cache.values()) if job._write_to is not None and not job._accepted]


def _keep() -> None:
    """Stands for what would forget a job."""


def _then_cancel(begin: Any, pool: Any) -> Callable[[int, float], None]:
    """What a job calls when it is begun: the request's own method `begin`, and then its cancellation."""

    def begin_and_cancel(process: int, at: float) -> None:
        begin(process, at)
        begin.__self__.cancel(pool, emit_retry=False)

    return begin_and_cancel
