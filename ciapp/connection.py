"""The broker as we connect to it: what each kind is told, and whether it takes us.

In:  the settings.
Out: kombu's options; the broker's address; or a BrokerError of one sentence.

A broker that is away comes back by itself, and services may start in any order, so they wait for it. One that
refuses us (a wrong password, no such virtual host, a host name that nobody knows) needs a person, and waiting
for it would hide that.
"""

# mypy: disable-error-code="no-untyped-call"
# kombu says that it is typed; most of its functions are not.

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from amqp.exceptions import AccessRefused, NotAllowed
from kombu.connection import Connection
from kombu.exceptions import OperationalError

from ciapp import mends, transport
from ciapp.errors import BrokerError, BrokerRefusedError
from ciapp.settings import Settings

ANSWER_WITHIN_S = 5  #: a broker that takes longer is away; a message that it took all the same does no harm
GIVE_BACK_WITHIN_S = 5  #: of Redis; what takes longer is given back twice, and a message does no harm
CONNECT_WITHIN_S = 3
NO_SUCH_HOST = (socket.EAI_NONAME, socket.EAI_NODATA)
#: Redis' refusals, by what its server's answer or redis-py's exception for it begins with.
REDIS_REFUSES = (
    "WRONGPASS",
    "NOAUTH",
    "NOPERM",
    "DB index is out of range",
    "invalid username-password pair",
)
REDIS_REFUSALS = ("AuthenticationError", "AuthorizationError", "NoPermissionError")


def broker_options(settings: Settings) -> dict[str, Any]:
    """What each broker needs to be told; seconds."""
    longest_s = int(settings.limits.run_s)
    if settings.broker_url.startswith("embedded://"):
        return {"folder": str(settings.state_path / "broker")}
    if settings.broker_url.startswith(("redis", "sentinel")):
        # Redis hands a message out again when it is not acknowledged in time, so time must not run out.
        return {
            "visibility_timeout": 2 * longest_s,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            # Whoever gives messages back locks out others; killed in the middle, for five minutes by default.
            "unacked_mutex_expire": GIVE_BACK_WITHIN_S,
            # By default it waits for ever for a Redis that is there and does not answer, or is cut off.
            "socket_timeout": ANSWER_WITHIN_S,
            "socket_connect_timeout": ANSWER_WITHIN_S,
            "socket_keepalive": True,
        }
    # A publisher that does not wait for RabbitMQ's answer does not learn that a message was lost.
    return {"confirm_publish": True}


def reach_broker(settings: Settings) -> str:
    """The broker's address, without its password, if it takes us.

    Raises BrokerRefusedError when it does not, BrokerError when it does not answer.
    """
    options = broker_options(settings)
    with Connection(
        settings.broker_url, connect_timeout=CONNECT_WITHIN_S, transport_options=options
    ) as connection:
        try:
            others = len(connection.alt) - 1  # further URLs of the setting, separated by ";"
            connection.ensure_connection(max_retries=max(0, others), interval_start=0)
        except broker_errors(connection) as error:
            raise broker_error(error, connection) from error
        except (ValueError, ImportError) as error:
            kind = settings.broker_url.partition(":")[0]
            install = f"install ciapp[{kind}], or " if isinstance(error, ImportError) else ""
            raise BrokerRefusedError(
                f"a {kind} broker cannot be used so: {str(error).rstrip('.')}; "
                f"{install}correct broker_url in the settings"
            ) from error
        return str(connection.as_uri())


def end_if_refused(settings: Settings) -> None:
    """What a service asks first. Raises BrokerRefusedError; a broker that is away will be waited for."""
    try:
        reach_broker(settings)
    except BrokerRefusedError:
        raise
    except BrokerError:
        return


def broker_errors(connection: Connection) -> tuple[type[Exception], ...]:
    """What a broker that is away, or turns us away, is told by: each transport has exceptions of its own."""
    return (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)


def broker_error(error: BaseException, connection: Connection) -> BrokerError:
    """The sentence about a failure to connect."""
    if isinstance(error, BrokerError):
        return error
    address, correct = connection.as_uri(), "correct broker_url in the settings"
    said = str(getattr(error, "reply_text", "") or error).rstrip(".")
    for one in _causes(error):
        if isinstance(one, socket.gaierror) and one.errno in NO_SUCH_HOST:
            return BrokerRefusedError(f"{address} has a host that nobody knows: {said}; {correct}")
        if isinstance(one, AccessRefused | NotAllowed) or _is_refusal_of_redis(one):
            return BrokerRefusedError(f"{address} refuses us: {said}; {correct}, or let us in there")
    return BrokerError(f"{address} does not answer: {said}; start it, or {correct}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what it came from: kombu and redis-py raise their own for the system's."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_refusal_of_redis(error: BaseException) -> bool:
    # By name, as redis-py is there only where it is the broker's.
    return type(error).__module__ == "redis.exceptions" and (
        type(error).__name__ in REDIS_REFUSALS or str(error).startswith(REDIS_REFUSES)
    )


transport.register()
mends.apply()
