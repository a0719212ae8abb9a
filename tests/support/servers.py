"""Brokers and databases for tests: private ones that can be killed, and those that listen already.

A private server has a free port and a folder of its own; `kill` is kill -9, and `start` brings it back on the
same port with what it had on its disk.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ciapp.testing.processes import list_tree
from tests.support.network import Host
from tests.support.services import need

RABBITMQ_HOME = Path("/usr/lib/rabbitmq/bin")
POSTGRESQL_HOMES = "/usr/lib/postgresql"
STANDARD_RABBITMQ = os.environ.get("TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
START_WITHIN_S = 60.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((host, port)) == 0


def _runs(pid: int) -> bool:
    """Whether a process has not ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def standard_rabbitmq_url() -> str:
    """The RabbitMQ that listens where RabbitMQ does; skips without one. Others use it: name queues apart."""
    if not listens(5672):
        need("RabbitMQ", "nobody listens on port 5672")
    return STANDARD_RABBITMQ


class PrivateServer:
    """A server of this test's own."""

    name = ""
    user = ""  #: who runs it, when we are root and it will not be root's
    stop_signal = signal.SIGTERM

    def __init__(self, test: unittest.TestCase, host: Host | None = None) -> None:
        """`host` is where it runs, in a network of the test's own; else this machine."""
        self._host = host
        self.address = host.address if host else "127.0.0.1"
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"ciapp-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        test.addCleanup(self._remove)
        if self._user():
            shutil.chown(self.folder, self._user())
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """What has to be done once, before the first start."""

    def command(self) -> list[str]:
        """What starts the server in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables the server needs beyond ours."""
        return {}

    def is_ready(self) -> bool:
        """Whether it answers."""
        if self._host is None:
            return listens(self.port)
        ask = f"import socket; socket.create_connection(({self.address!r}, {self.port}), 1)"
        command = [*self._host.prefix, sys.executable, "-c", ask]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def start(self) -> None:
        """Start it again after `stop` or `kill`, and wait until it answers."""
        assert self._process is None, "a second process would be in the way of the first, which nobody ends"
        with (self.folder / "server.log").open("ab") as log:
            self._process = self._popen(self.command(), log.fileno())
        until = time.monotonic() + START_WITHIN_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"{self.name} did not start: {said}")
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9 of all its processes; none is there any more when this returns."""
        if self._process is not None:
            # PostgreSQL's are in sessions of their own; it does not start again while one of them is left.
            processes = list_tree(self._process.pid)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            for pid in processes[1:]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + START_WITHIN_S
            while any(map(_runs, processes[1:])) and time.monotonic() < until:
                time.sleep(0.01)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A block during which all its processes are stopped: it takes connections and never answers."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it in order."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            self._process.wait(START_WITHIN_S)
            self.kill()

    @property
    def pid(self) -> int:
        """Its process; 0 while it is stopped."""
        return self._process.pid if self._process is not None else 0

    def run(self, *command: str) -> str:
        """What a command prints that runs as the server's user. Raises CalledProcessError."""
        return subprocess.run(
            [*self._prefix(), *command],
            cwd=self.folder,
            env=os.environ | self.environment(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def _popen(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._prefix(), *command],
            cwd=self.folder,
            env=os.environ | self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _prefix(self) -> list[str]:
        """What runs a command on the server's host, under its user."""
        who = (
            ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            if (user := self._user())
            else []
        )
        return [*(self._host.prefix if self._host else ()), *who]

    def _user(self) -> str:
        return self.user if os.geteuid() == 0 else ""

    def _remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class PrivateRedis(PrivateServer):
    """Redis that writes each change to its disk."""

    name = "redis"

    def prepare(self) -> None:
        if shutil.which("redis-server") is None:
            need("Redis", "redis-server is not installed")

    def command(self) -> list[str]:
        options = {"port": str(self.port), "bind": self.address, "dir": str(self.folder), "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "always", "protected-mode": "no"}
        return ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]

    @property
    def url(self) -> str:
        """As a broker."""
        return f"redis://{self.address}:{self.port}/0"


class PrivateRabbitMQ(PrivateServer):
    """A RabbitMQ node of its own; it takes some seconds to start.

    RabbitMQ 3.10 writes the names of its quorum queues to the disk within three minutes, and when it is
    stopped: a queue that was declared since cannot be used after `kill`. So `stop` and `start` before.
    """

    name = "rabbitmq"
    user = "rabbitmq"

    def prepare(self) -> None:
        if not (RABBITMQ_HOME / "rabbitmq-server").exists():
            need("RabbitMQ", "rabbitmq-server is not installed")
        self._distribution_port = free_port()
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = {self.address}:{self.port}\nloopback_users = none\n"
        )
        (self.folder / "environment").write_text("")

    def command(self) -> list[str]:
        return [str(RABBITMQ_HOME / "rabbitmq-server")]

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),  # the cookie of the node
            "RABBITMQ_NODENAME": f"ciapp-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "environment"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # One scheduler: it starts with less work than with one for each processor.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }

    def is_ready(self) -> bool:
        # It listens before it has read its queues back; its log tells when it takes connections.
        log = self.folder / "server.log"
        return super().is_ready() and log.read_text(errors="replace").count("completed with") > self._starts

    def start(self) -> None:
        log = self.folder / "server.log"
        self._starts = log.read_text(errors="replace").count("completed with") if log.exists() else 0
        super().start()

    @property
    def url(self) -> str:
        """As a broker."""
        return f"amqp://guest:guest@{self.address}:{self.port}//"


class PrivatePostgreSQL(PrivateServer):
    """A PostgreSQL cluster of its own; anybody on this machine may connect."""

    name = "postgresql"
    user = "postgres"
    stop_signal = signal.SIGINT  # SIGTERM would wait for every client to leave

    def prepare(self) -> None:
        homes = sorted(Path(POSTGRESQL_HOMES).glob("*/bin/initdb"))
        found = str(homes[-1]) if homes else shutil.which("initdb")
        if not found:
            need("PostgreSQL", "initdb is not installed")
        self._bin = Path(found).parent
        try:
            pwd.getpwnam(self.user)
        except KeyError:
            if os.geteuid() == 0:
                need("PostgreSQL", "it does not run as root, and there is no user postgres")
        self.run(str(self._bin / "initdb"), "-D", "data", "-A", "trust", "-U", "postgres", "-E", "UTF8")
        with (self.folder / "data" / "pg_hba.conf").open("a") as access:
            access.write("host all all 10.0.0.0/8 trust\n")

    def command(self) -> list[str]:
        options = ["-c", f"listen_addresses={self.address}", "-c", f"unix_socket_directories={self.folder}"]
        return [str(self._bin / "postgres"), "-D", "data", "-p", str(self.port), *options]

    def is_ready(self) -> bool:
        ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0

    @property
    def url(self) -> str:
        """As a database."""
        return f"postgresql://postgres@{self.address}:{self.port}/postgres"

    @property
    def local_url(self) -> str:
        """As a database of this machine's, whatever network the server is on."""
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}&port={self.port}"
