"""Keep a worker alive when Redis restarts under it, or holds what is no message.

In:  kombu's Redis transport.
Out: the same one, whose channels turn two exceptions that end a worker into what the worker expects.

Seen with kombu 5.7.0 and Celery 5.7.0:
- Redis restarts while a task with `acks_late` runs. The worker collects its connection, which takes the
  transport's client away, and then closes it; the channel that holds the task's message wants to put it
  back, asks the missing client where Redis is, and gets an AttributeError. A connection error is what the
  worker awaits there. (https://github.com/celery/kombu/issues/582 failed in the same line.)
- An element of a queue's list is no JSON, or no kombu message.

Where kombu raises nothing, nothing is changed.
"""

# mypy: disable-error-code="no-untyped-call"
# kombu says that it is typed; most of its functions are not.

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

logger = logging.getLogger(__name__)


class Channel(kombu_redis.Channel):
    """A channel that says when its connection is gone, and drops what is no message."""

    def _connparams(self, asynchronous: bool = False) -> Any:
        try:
            return super()._connparams(asynchronous)
        except AttributeError as error:
            if self.connection is not None and self.connection.client is not None:
                raise
            raise RedisConnectionError("the connection of this channel is closed") from error

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            logger.warning("not a message, dropped", extra={"reason": repr(error)}, exc_info=True)
            raise Empty from error


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with that channel."""

    Channel = Channel
