"""Keep a worker alive when it is given a message that is no task.

In:  what the broker delivers; Celery uses this class by its setting `worker_consumer`.
Out: tasks; anything else is rejected with an error in the log, as Celery itself does with what it foresees.

Seen with Celery 5.7.0: a body that is JSON but no list of arguments, or a header of an unexpected type, ends
the worker with a TypeError. The message stays on the queue, and ends the next worker.

With a quorum queue, Celery's consumer also declares 28 queues and 29 exchanges for tasks with an ETA, on each
start (0.7 s), and warns that they cannot serve a direct exchange. No task here has an ETA.
"""

# mypy: disable-error-code="no-untyped-call"
# celery has no types.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker import consumer as celery_consumer

DELAYED_DELIVERY = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(celery_consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, which survives each message."""

    class Blueprint(celery_consumer.Consumer.Blueprint):  # type: ignore[misc]
        """The consumer's steps without the queues for delayed tasks."""

        default_steps = tuple(
            step for step in celery_consumer.Consumer.Blueprint.default_steps if step != DELAYED_DELIVERY
        )

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """What is called with each message."""
        handle = super().create_task_handler(*args, **options)

        def reject_what_is_no_task(message: Any) -> Any:
            try:
                return handle(message)
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                return self.on_invalid_task(None, message, error)

        return reject_what_is_no_task
