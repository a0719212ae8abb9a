"""The broker that needs no server: kombu's channels over a folder, as `embedded://`.

In:  what kombu publishes, declares and consumes; transport option `folder`.
Out: the files of `ciapp.broker`.

kombu's own filesystem transport writes and reads in place, and forgets what a dead worker held; of it, only
the fanout and the exchange types are left here. This one joins kombu's event loop: a worker waits for a byte
in a FIFO, so it is told of a message at once and costs nothing while there is none.
"""

# mypy: disable-error-code="no-untyped-call"
# kombu says that it is typed; most of its functions are not.

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual
from kombu.utils.json import dumps, loads

from ciapp.broker.folder import SWEEP_EVERY_S, BrokerFolder
from ciapp.broker.owner import Message, Owner
from ciapp.errors import BrokerError, SettingsError

DURABLE = 2  #: AMQP's delivery mode of a message that outlives its broker
BATCH = 20  #: messages delivered before the event loop may do something else


def register() -> None:
    """Make kombu know `embedded://`."""
    TRANSPORT_ALIASES["embedded"] = "ciapp.transport:Transport"


class QoS(virtual.QoS):
    """What a channel was given and has not settled."""

    def ack(self, delivery_tag: str) -> None:
        """Be done with a message."""
        super().ack(delivery_tag)
        self.channel.settle(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or be done with it."""
        super().ack(delivery_tag)
        if requeue:
            self.channel.give_back(delivery_tag)
        else:
            self.channel.settle(delivery_tag)


class Channel(filesystem.Channel):
    """A channel whose queues are folders."""

    QoS = QoS

    @property
    def broker(self) -> BrokerFolder:
        """The folder of the connection."""
        folder: BrokerFolder = self.connection.folder
        return folder

    @property
    def owner(self) -> Owner:
        """Who holds what the connection took."""
        owner: Owner = self.connection.owner
        return owner

    def settle(self, delivery_tag: str) -> None:
        """Be done with a message; nothing when the connection that took it is closed: it was given back."""
        if self.connection is not None:
            self.owner.settle(delivery_tag)
            self.owner.wake()  # its place may be filled

    def give_back(self, delivery_tag: str) -> None:
        """Put a message back on its queue; nothing when its connection is closed, as for `settle`."""
        if self.connection is not None:
            self.owner.give_back(delivery_tag)

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **options: Any
    ) -> None:
        """Consume from a queue; without acknowledgement, a message is settled when it is delivered."""

        def settle_and_call(message: Any) -> Any:
            self.owner.settle(message.delivery_tag)
            return callback(message)

        deliver = settle_and_call if no_ack else callback
        super().basic_consume(queue, no_ack, deliver, consumer_tag, **options)
        self.owner.listen(queue)
        self.owner.wake()

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> Any:
        """The first message of a queue, or None."""
        message = super().basic_get(queue, no_ack, **options)
        if message is not None and no_ack:
            self.owner.settle(message.delivery_tag)
        return message

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Bound how much is delivered and not settled."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self.owner.wake()

    def queue_bind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Bind a queue, also one that this process bound before: it may have been deleted since."""
        exchange = exchange or "amq.direct"
        kind = self.typeof(exchange)
        key, pattern, name = kind.prepare_bind(queue, exchange, routing_key, arguments)
        self.broker.bind(exchange, (key or "", pattern or "", name))

    def queue_unbind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **_: Any
    ) -> None:
        """Undo `queue_bind`."""
        exchange = exchange or "amq.direct"
        kind = self.typeof(exchange)
        key, pattern, name = kind.prepare_bind(queue, exchange, routing_key, arguments)
        self.broker.unbind(exchange, (key or "", pattern or "", name))

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> None:
        """Delete a queue; whether somebody uses it is not known."""
        if not (if_empty and self._size(queue)):
            self.broker.delete_queue(queue)

    def get_table(self, exchange: str) -> list[filesystem.exchange_queue_t]:
        """The bindings of an exchange."""
        return [filesystem.exchange_queue_t(*binding) for binding in self.broker.bindings(exchange)]

    def _new_queue(
        self,
        queue: str,
        auto_delete: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self.broker.declare_queue(queue)
        if auto_delete or exclusive:
            # Event consumers and callers of remote control: nobody needs their queue after them.
            self.owner.keep(queue, (arguments or {}).get("x-message-ttl"))

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return self.broker.has_queue(queue)

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        properties = message["properties"]
        if not properties["delivery_info"].get("exchange") and not self.broker.has_queue(queue):
            # A named queue is asked for; one that an exchange names may have been deleted with its consumer.
            self.broker.declare_queue(queue)
        self.broker.put(
            queue,
            dumps(message).encode(),
            priority=self._get_message_priority(message),
            durable=properties.get("delivery_mode") == DURABLE,
        )

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        while (message := self.owner.take(queue)) is not None:
            payload = self._payload(message)
            if payload is not None:
                return payload
        raise Empty

    def _payload(self, message: Message) -> dict[str, Any] | None:
        """A message as kombu wants it; None when it is none, and was put aside."""
        try:
            payload: dict[str, Any] = loads(message.content)
            payload["properties"]["delivery_tag"] = message.tag
            payload["properties"]["delivery_info"]["redelivered"] = message.returned > 0
            self.Message(payload, channel=self)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self.owner.reject(message.tag, f"kombu did not write it: {error!r}")
            return None
        return payload

    def _restore(self, message: Any) -> None:
        self.give_back(message.delivery_tag)

    def _size(self, queue: str) -> int:
        return self.broker.size(queue)

    def _purge(self, queue: str) -> int:
        return self.broker.purge(queue)


class Transport(filesystem.Transport):
    """A connection to a broker's folder."""

    Channel = Channel
    driver_type = "embedded"
    driver_name = "embedded"
    implements = filesystem.Transport.implements.extend(asynchronous=True)
    connection_errors = (*filesystem.Transport.connection_errors, BrokerError)  # type: ignore[assignment]
    default_connection_params: dict[str, Any] = {}  # noqa: RUF012 - kombu's name; there is no host to connect to

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self._options = client.transport_options
        self._owner: Owner | None = None
        self._loop: Any = None
        self._timer: Any = None

    @cached_property
    def folder(self) -> BrokerFolder:
        """Where all is kept. Asked for late: Celery makes a transport just to write its URL."""
        path = self._options.get("folder")
        if not path:
            raise SettingsError("embedded:// has no folder; name one in the transport option 'folder'")
        return BrokerFolder(Path(path))

    def establish_connection(self) -> Any:
        """Begin to use the folder; refused here when there is none."""
        self.folder.sweep()
        return super().establish_connection()

    @property
    def owner(self) -> Owner:
        """Who holds what this connection took; made when first asked for, as publishers need none."""
        if self._owner is None or not self._owner.is_open:
            self._owner = Owner(self.folder)
            if self._loop is not None:
                self._loop.add_reader(self._owner.fileno(), self._deliver_waiting)
                self._timer = self._loop.call_repeatedly(SWEEP_EVERY_S, self._tick)
        return self._owner

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Deliver from kombu's event loop."""
        self._loop = loop

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Deliver one message; raises TimeoutError when none came in time."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self.owner.hear()
            try:
                self._deliver_one()
                return
            except Empty:
                left_s = SWEEP_EVERY_S if until is None else until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self.owner.wait(min(left_s, SWEEP_EVERY_S))
            self.folder.sweep()

    def close_connection(self, connection: Any) -> None:
        """Give back what is not settled."""
        super().close_connection(connection)
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if self._loop is not None:
            self._loop.remove_reader(owner.fileno())
            self._timer.cancel()
            self._loop = None
        owner.close()

    def _deliver_one(self) -> None:
        """Deliver a message from the next queue that has one. Raises Empty."""
        assert self.cycle is not None  # kombu sets it when it is made
        self.cycle.get(self._deliver)

    def _deliver_waiting(self) -> None:
        self.owner.hear()
        for _ in range(BATCH):
            try:
                self._deliver_one()
            except Empty:
                return
        self.owner.wake()

    def _tick(self) -> None:
        """Once a second: look for what dead owners left, and for what nobody told us of."""
        self.owner.check()
        self.folder.sweep()
        self.owner.wake()
