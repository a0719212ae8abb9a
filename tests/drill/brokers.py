"""The brokers of a drill: where messages are, what can happen to each, and what is left on it.

In:  a kind (`embedded`, `redis`, `rabbitmq`) or a URL.
Out: a broker; a private server where faults stop or kill it. One that is given by its URL is not the drill's
     to stop: it gets messages that should not be there, and nothing worse.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kombu import Connection, Queue

from ciapp.celery import QUEUE, make_app, run_queue
from ciapp.connection import broker_error, broker_errors
from ciapp.results.matrix import DEFAULT, environment_of
from ciapp.results.runs import Run, task_id
from ciapp.settings import Settings
from ciapp.testing.interpreters import find_interpreters
from tests.support.network import Host
from tests.support.servers import RABBITMQ_HOME, PrivateRabbitMQ, PrivateRedis, PrivateServer

STATISTICS_AGE_S = 6.0  #: RabbitMQ counts what quorum queues hold every 5 s
BINDINGS = "_kombu.binding"  #: which queues an exchange leads to; kombu keeps them in Redis
Strike = Callable[[float], None]  #: a fault, and for how many seconds it lasts

#: What is no message of ours: body, content type, headers.
GARBAGE: tuple[tuple[bytes, str, dict[str, object]], ...] = (
    (b"garbage", "text/plain", {}),
    (b"{", "application/json", {}),
    (b'{"a": 1}', "application/json", {"task": "ciapp.run_commit", "id": "x"}),
    (b"[[1, 1], {}, {}]", "application/json", {"task": "ciapp.no_such_task", "id": "a:b:1:1"}),
    (b'[["one"], {}, {}]', "application/json", {"task": "ciapp.run_commit", "id": "a"}),
    (b"[[999999999, 1], {}, {}]", "application/json", {"task": "ciapp.run_commit", "id": "a:b:999999999:1"}),
    (b"\x80\x04N.", "application/x-python-serialize", {"task": "ciapp.run_commit", "id": "b"}),
)


class Broker:
    """A broker, and the faults it can suffer."""

    url = ""
    server: PrivateServer | None = None
    settles_within_s = 20.0  #: how long after the last run a message may still be held

    def __init__(self) -> None:
        self.faults: dict[str, Strike] = {}
        self.settings = Settings()

    def prepare(self, settings: Settings) -> None:
        """Called once the settings of the installation are known, before anything runs."""
        self.settings = settings

    def send_again(self, runs: list[Run], chance: random.Random) -> None:
        """Send messages for attempts of runs: the next, the latest or an earlier one."""
        app = make_app(self.settings)
        with self.reach() as connection:
            for run in runs:
                attempt = max(1, run.attempt + chance.randint(-1, 1))
                app.send_task(
                    "ciapp.run_commit",
                    args=(run.id, attempt),
                    task_id=task_id(run, attempt),
                    queue=QUEUE,
                    connection=connection,
                )

    def send_garbage(self) -> None:
        """Send what is no message of ours."""
        queue = run_queue(self.settings)
        with self.reach() as connection:
            for body, content_type, headers in GARBAGE:
                connection.Producer().publish(
                    body,
                    exchange=queue.exchange,
                    routing_key=QUEUE,
                    declare=[queue],
                    content_type=content_type,
                    content_encoding="utf-8",
                    headers=headers,
                )

    @contextmanager
    def reach(self) -> Iterator[Connection]:
        """A connection for a block. Raises BrokerError when the broker is away, or goes away meanwhile."""
        with self.connect() as connection:
            try:
                yield connection
            except broker_errors(connection) as error:
                raise broker_error(error, connection) from error

    def connect(self) -> Connection:
        """A connection that gives up soon."""
        app = make_app(self.settings)
        return app.connection_for_write(connect_timeout=3)

    def left(self) -> list[str]:
        """What is still on it though every run has finished, in sentences; workers are running."""
        with self.connect() as connection:
            ready = Queue(QUEUE, channel=connection.default_channel).queue_declare(passive=True).message_count
        return [f"{ready} messages are on the queue"] if ready else []

    def left_at_the_end(self) -> list[str]:
        """What is still there though nothing runs any more: what a worker held is on the queue again."""
        return self.left()


class EmbeddedBroker(Broker):
    """A folder."""

    url = "embedded://"

    def __init__(self) -> None:
        super().__init__()
        self.faults = {"broker emptied": self._empty, "foreign files": self._put_foreign_files}

    @property
    def folder(self) -> Path:
        """Where it keeps everything."""
        return self.settings.state_path / "broker"

    def left(self) -> list[str]:
        for file in (self.folder / "tmp").glob("*"):
            _age(file, 600)  # what a killed process left is swept after a minute
        found = [f"{file} is still there" for file in self.folder.glob(f"queues/{QUEUE}/*")]
        found += [f"{file} is still held" for file in self.folder.glob("owners/*/*!*")]
        return found + [f"{file} is still there" for file in self.folder.glob("tmp/*")]

    def left_at_the_end(self) -> list[str]:
        found = [f"{file} is still there" for file in self.folder.glob("owners/*")]
        return found + [f"{file} is still there" for file in self.folder.glob("tmp/*")]

    def _empty(self, _lasts_s: float) -> None:
        """The folder is lost."""
        grave = self.folder.with_name(f"lost-{time.time_ns()}")
        with suppress(FileNotFoundError):  # it is lost already, and nobody has made a new one
            self.folder.rename(grave)
            shutil.rmtree(grave)

    def _put_foreign_files(self, _lasts_s: float) -> None:
        """Torn, empty and foreign files and folders where messages, owners and bindings belong."""
        queue, owners = self.folder / "queues" / QUEUE, self.folder / "owners"
        bindings, parts = self.folder / "exchanges" / QUEUE, self.folder / "tmp"
        for folder in (queue, owners, bindings, parts):
            folder.mkdir(parents=True, exist_ok=True)  # another fault may have emptied the broker
        name = f"4-{time.time_ns():020d}-{os.urandom(6).hex()}.0"
        torn = json.dumps({"body": "W1sxLCAxXSwge30sIHt9XQ==", "properties": {"delivery_mode": 2}})[:40]
        (queue / name).write_text(torn)
        (queue / name.replace("4-", "3-", 1)).touch()
        (queue / name.replace("4-", "2-", 1)).mkdir()
        (queue / "README").write_text("What is this folder?\n")
        (queue / ".nfs0001").touch()
        (owners / f"nobody-{name[2:22]}").mkdir()
        (owners / f"a-file-{name[2:22]}").touch()
        (bindings / "notes.txt").touch()
        (queue.parent / f"file-{name[2:22]}").touch()
        (parts / name).write_text(torn)


class ServerBroker(Broker):
    """A private server."""

    server: PrivateServer

    def __init__(self, server: PrivateServer) -> None:
        super().__init__()
        self.server = server
        self.faults = {"broker away": self._away, "broker killed": self._kill, "broker emptied": self._empty}

    def _away(self, lasts_s: float) -> None:
        self.server.stop()
        time.sleep(lasts_s)
        self.server.start()

    def _kill(self, _lasts_s: float) -> None:
        self.server.kill()
        self.server.start()

    def _empty(self, _lasts_s: float) -> None:
        raise NotImplementedError


class RedisBroker(ServerBroker):
    """Redis."""

    def __init__(self, server: PrivateRedis) -> None:
        super().__init__(server)
        self.url = server.url

    def prepare(self, settings: Settings) -> None:
        super().prepare(settings)
        # A message that a killed worker held comes back when its visibility ends.
        self.settles_within_s = 2 * settings.limits.run_s + 20

    def left(self) -> list[str]:
        counts = {name: self._ask(*words) for name, *words in self.COUNTS}
        return [f"{count} messages are {name}" for name, count in counts.items() if count != "0"]

    COUNTS = (
        ("on the queue", "LLEN", QUEUE),
        ("not acknowledged", "HLEN", "unacked"),
        ("in the index of those not acknowledged", "ZCARD", "unacked_index"),
    )

    def left_at_the_end(self) -> list[str]:
        keys = self._ask("--scan").split()
        return [f"Redis still has {key}" for key in sorted(keys) if not key.startswith(BINDINGS)]

    def _empty(self, _lasts_s: float) -> None:
        self._ask("FLUSHALL")

    def _ask(self, *words: str) -> str:
        server = self.server
        return server.run("redis-cli", "-h", server.address, "-p", str(server.port), *words).strip()


class RabbitmqBroker(ServerBroker):
    """A RabbitMQ node."""

    def __init__(self, server: PrivateRabbitMQ) -> None:
        super().__init__(server)
        self.url = server.url
        self._asked_s = 0.0

    def prepare(self, settings: Settings) -> None:
        super().prepare(settings)
        # A node remembers its quorum queues once it was stopped in order; see PrivateRabbitMQ. A worker that
        # asks for one which a kill has lost waits for a minute and is sent away, again and again.
        versions = find_interpreters(settings).interpreters
        with self.connect() as connection:
            for environment in (DEFAULT, *map(environment_of, versions)):
                run_queue(settings, environment)(connection.default_channel).declare()
        self.server.stop()
        self.server.start()

    def left(self) -> list[str]:
        self._asked_s = self._asked_s or time.monotonic()
        if time.monotonic() - self._asked_s < STATISTICS_AGE_S:
            return ["RabbitMQ does not say yet which messages are not acknowledged"]
        listed = self._ask("list_queues", "--quiet", "name", "messages_unacknowledged")
        counts = dict(line.split("\t") for line in listed.splitlines())
        held = counts.get(QUEUE, "0")
        return super().left() + ([f"{held} messages are not acknowledged"] if held != "0" else [])

    def left_at_the_end(self) -> list[str]:
        listed = self._ask("list_queues", "--quiet", "name", "messages")
        counts = dict(line.split("\t") for line in listed.splitlines())
        counts.pop("name", None)  # the title of the column
        stay = {name for name in counts if name == QUEUE or name.startswith(f"{QUEUE}.")}
        found = [f"{counts[name]} messages are on {name}" for name in sorted(stay) if counts[name] != "0"]
        return found + [f"queue {name} is still there" for name in sorted(counts.keys() - stay)]

    def _empty(self, _lasts_s: float) -> None:
        with self.connect() as connection:
            connection.default_channel.queue_purge(QUEUE)

    def _ask(self, *words: str) -> str:
        node = self.server.environment()["RABBITMQ_NODENAME"]
        return self.server.run(str(RABBITMQ_HOME / "rabbitmqctl"), "-n", node, *words)


class GivenBroker(Broker):
    """A broker of somebody else's."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url


def open_broker(holder: unittest.TestCase, name: str, host: Host | None = None) -> Broker:
    """The broker that a command line names; `holder` ends what is started for it, on that host."""
    if name == "embedded":
        return EmbeddedBroker()
    if name == "redis":
        return RedisBroker(PrivateRedis(holder, host))
    if name == "rabbitmq":
        return RabbitmqBroker(PrivateRabbitMQ(holder, host))
    return GivenBroker(name)


def _age(path: Path, seconds: float) -> None:
    """Make a file look older, for those who clear away what is old."""
    at_s = time.time() - seconds
    try:
        os.utime(path, (at_s, at_s))
    except FileNotFoundError:
        return
