"""Bring back a queue that RabbitMQ has lost hold of.

In:  a connection to the broker; the queues that a worker consumes from.
Out: those that answer nobody are deleted. The worker, which is about to start again, declares them anew.

Seen with RabbitMQ 3.10.8: a quorum queue that was declared just before its node was killed is there
afterwards, and answers nobody. Whoever consumes from it is sent away after 65 s with INTERNAL_ERROR, a worker
again and again, with the queues of all its Pythons. The messages go with the queue, which does no harm: the
ledger has them sent again.
"""

# mypy: disable-error-code="no-untyped-call"
# kombu says that it is typed; most of its functions are not.

from __future__ import annotations

import logging
from collections.abc import Iterable

from amqp.exceptions import InternalError, NotFound
from kombu.connection import Connection

from ciapp.connection import broker_errors

logger = logging.getLogger(__name__)
ANSWERS_WITHIN_S = 10  #: a queue that has a leader
DELETED_WITHIN_S = 30  #: it takes 5 s


def is_of_a_lost_queue(error: Exception) -> bool:
    """Whether a connection may have ended so because of one."""
    return isinstance(error, InternalError)


def delete_lost(broker: Connection, names: Iterable[str]) -> None:
    """Delete the queues that do not answer; nothing while the broker is away."""
    try:
        for name in names:
            if not _answers(broker, name):
                logger.error("queue lost by its broker; deleted, to be declared anew", extra={"queue": name})
                with _connect(broker, DELETED_WITHIN_S) as connection:
                    connection.default_channel.queue_delete(name)
    except broker_errors(broker) as error:
        logger.warning("queues cannot be looked at", extra={"error": str(error)})


def _answers(broker: Connection, name: str) -> bool:
    connection = _connect(broker, ANSWERS_WITHIN_S)
    channel = connection.default_channel
    try:
        # What it gives is given back when the connection ends.
        channel.basic_get(name)
    except NotFound:
        return True
    except (InternalError, TimeoutError):
        return False
    finally:
        connection.collect()
    return True


def _connect(broker: Connection, within_s: float) -> Connection:
    """A connection on which no answer takes longer, but for a TimeoutError."""
    options = {**(broker.transport_options or {}), "read_timeout": within_s}
    connection: Connection = broker.clone(transport_options=options)
    return connection
