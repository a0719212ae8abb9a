"""Keep a worker alive when it is given a message that is no task, calm when it has no broker, quick to stop.

In:  what the broker delivers; Celery uses this class by its setting `worker_consumer`.
Out: tasks; anything else is rejected with an error in the log, as Celery itself does with what it foresees.

Seen with Celery 5.7.0: a body that is JSON but no list of arguments, or a header of an unexpected type, ends
the worker with a TypeError. The message stays on the queue, and ends the next worker.

With a quorum queue, Celery's consumer also declares 28 queues and 29 exchanges for tasks with an ETA, on each
start (0.7 s), and warns that they cannot serve a direct exchange. No task here has an ETA.

A broker that refuses the worker: a wrong password ends it with a traceback, with a virtual host that is
missing it tries again 16 times a second, and one that is away is logged at each try. Here a refusal ends a
worker that never had its broker, with a sentence. Else it waits, for tests may be under way whose reports the
database takes: with pauses that grow, saying what is wrong at once and then each minute.

How it stops is told in `ciapp.mends.stopping`, and which queues it brings back in `ciapp.mends.queues`.
"""

# mypy: disable-error-code="no-untyped-call"
# celery has no types.

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.worker import consumer as celery_consumer
from celery.worker.state import maybe_shutdown

from ciapp.connection import broker_error, broker_errors
from ciapp.errors import BrokerError, BrokerRefusedError
from ciapp.logs import Absence
from ciapp.mends import queues, stopping

logger = logging.getLogger(__name__)
DELAYED_DELIVERY = "celery.worker.consumer.delayed_delivery:DelayedDelivery"
LONGEST_PAUSE_S = 10  #: between two tries to connect; the first one is 1 s, and each a second longer


class Consumer(celery_consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, which survives each message."""

    first_connection_attempt: bool

    class Blueprint(celery_consumer.Consumer.Blueprint):  # type: ignore[misc]
        """The consumer's steps without the queues for delayed tasks."""

        default_steps = tuple(
            step for step in celery_consumer.Consumer.Blueprint.default_steps if step != DELAYED_DELIVERY
        )

        def close(self, parent: Any) -> None:
            """Begin to stop."""
            stopping.wait_for_given(parent.pool)
            super().close(parent)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """What is called with each message."""
        handle = super().create_task_handler(*args, **options)

        def reject_what_is_no_task(message: Any) -> Any:
            try:
                return handle(message)
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                return self.on_invalid_task(None, message, error)

        return reject_what_is_no_task

    def ensure_connected(self, conn: Any) -> Any:
        """The connection, once the broker takes us; ends the worker when its first broker refuses it."""
        absence, pause_s = Absence(logger), 0
        while True:
            maybe_shutdown()
            try:
                conn.ensure_connection(max_retries=max(0, len(conn.alt) - 1), interval_start=0)
                break
            except broker_errors(conn) as error:
                failure = broker_error(error, conn)
            if self.first_connection_attempt and isinstance(failure, BrokerRefusedError):
                raise _end(failure)
            absence.note("broker", failure)
            pause_s = min(pause_s + 1, LONGEST_PAUSE_S)
            for _ in range(pause_s):
                maybe_shutdown()
                time.sleep(1)
        absence.end()
        self.first_connection_attempt = False
        return conn

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Make ready to connect again."""
        super().on_connection_error_after_connected(exc)
        if queues.is_of_a_lost_queue(exc):
            with self.app.connection_for_read() as broker:
                queues.delete_lost(broker, self.app.amqp.queues.consume_from)

    def cancel_active_requests(self) -> None:
        """Cancel what the pool's processes do, and what they were given to do."""
        super().cancel_active_requests()
        stopping.cancel_given(self.pool)

    def start(self) -> None:
        """Consume until told to stop; end with a sentence where the broker lets us in, and no further."""
        try:
            super().start()
        except self.channel_errors as error:
            sentence = f"{self.conninfo.as_uri()} does not let us work: {error}; see `ciapp doctor`"
            raise _end(BrokerError(sentence)) from error


def _end(failure: BrokerError) -> WorkerShutdown:
    logger.error("worker ends", extra={"error": str(failure)})
    return WorkerShutdown(failure.exit_code)
