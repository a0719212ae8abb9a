"""One ciapp for a drill, and its services, kept running as systemd would keep them.

In:  a broker and a database.
Out: services that are started again when they end, and a sentence for each end that nobody of the drill
     brought about; what the ledger last said of the runs; repositories with a hook and without.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import unittest
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from ciapp.errors import LedgerError
from ciapp.results.database import Database
from ciapp.results.report import State
from ciapp.results.runs import Run, find_runs
from ciapp.settings import load_settings
from tests.drill.brokers import Broker
from tests.drill.databases import Backend
from tests.drill.hosts import Hosts
from tests.support.clocks import Clock
from tests.support.disks import SmallDisk
from tests.support.installation import Installation
from tests.support.network import Host
from tests.support.servers import free_port

LEASE_S = 4.0
ATTEMPTS = 6  #: faults hold back long before a run has lost so many
RUN_LIMIT_S = 20.0  #: also bounds how long Redis keeps a dead worker's message
WORKERS, SLOTS = 2, 2
SETTINGS = (
    f"lease_s = {LEASE_S}",
    f"attempts = {ATTEMPTS}",
    "reconcile_s = 3",
    "[limits]",
    f"run_s = {RUN_LIMIT_S}",
)
DISK_MIB = 512
PUSHES_AT_ONCE = 16  #: at most
RESTART_AFTER_S = 0.3
LOOK_EVERY_S = 0.1
#: A service that starts while the database is away or its disk full says so, and ends. A fault of ciapp's own
#: ends with another; what Celery makes the same of is found in the logs, by `tests.drill.complaints`.
AWAY_STATUS = 3
REPOSITORY, TWIN = "team", "twin"


class Service:
    """A process of ciapp's that is to run."""

    def __init__(
        self, ci: Installation, name: str, *words: str, host: Host | None = None, **variables: str
    ) -> None:
        self.name = name
        self._ci = ci
        self._words = words
        self._host = host
        self._variables = variables
        self._is_wanted = True
        self._struck: set[int] = set()  # processes that the drill has ended
        self._lock = threading.Lock()
        self.starts = 0
        self.process = self._start()

    def strike(self, number: int, *, whole_group: bool = False) -> None:
        """End it by a signal; it is started again once it has ended."""
        with self._lock:
            self._struck.add(self.process.pid)
            with suppress(ProcessLookupError):
                (os.killpg if whole_group else os.kill)(self.process.pid, number)

    def freeze(self, number: int) -> None:
        """SIGSTOP or SIGCONT to all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """SIGTERM, for good."""
        self._is_wanted = False
        self.strike(signal.SIGTERM)

    def mend(self) -> str:
        """Start it again if it has ended; a sentence when it ended without our doing."""
        with self._lock:
            status = self.process.poll()
            if status is None or not self._is_wanted:
                return ""
            struck = self.process.pid in self._struck
            self.process = self._start()
            if struck or status == AWAY_STATUS:
                return ""
            return f"{self.name} ended by itself with status {status}: {self._last_words()}"

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        return self._ci.start(*self._words, log=self.name, host=self._host, **self._variables)

    def _last_words(self) -> str:
        lines = (self._ci.folder / f"{self.name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


class RunsSeen(msgspec.Struct, frozen=True):
    """What the ledger said of the plan's runs when it last answered."""

    runs: tuple[Run, ...] = ()
    purged: int = 0  #: commits whose run has finished and was purged

    @property
    def finished(self) -> int:
        """How many are finished."""
        return self.purged + sum(run.state is State.FINISHED for run in self.runs)

    @property
    def progress(self) -> tuple[int, int]:
        """What changes as long as something goes on."""
        return self.finished, sum(run.attempt for run in self.runs)

    @property
    def tries(self) -> int:
        """The most attempts that an unfinished run has had since it was asked for."""
        return max((run.tries for run in self.runs if run.state is not State.FINISHED), default=0)


class Stage:
    """A ciapp that runs, on one machine or with each part on a host of its own."""

    def __init__(
        self, holder: unittest.TestCase, broker: Broker, backend: Backend, hosts: Hosts | None
    ) -> None:
        self._holder = holder
        self.broker, self.backend, self.hosts = broker, backend, hosts
        self._clone_url = f"git://{hosts.git.address}/{REPOSITORY}.git" if hosts else ""
        settings = (*SETTINGS, f"[repository.{REPOSITORY}]", f'clone_url = "{self._clone_url}"')
        self.ci = Installation(holder, *settings, broker=broker.url, database=backend.url)
        # What is left in the folder of temporary files is to be seen.
        self.temporary = self.ci.folder / "tmp"
        self.temporary.mkdir()
        self.temporary.chmod(0o1777)
        self.ci.environment["TMPDIR"] = str(self.temporary)
        self.clock = self._new_clock()
        self.ci.environment |= self.clock.environment if self.clock else {}
        self.settings = load_settings(self.ci.config, {})
        self.database: Database = self.ci.database
        self.state = self.ci.folder / "state"
        self.seen = RunsSeen()
        self.violations: list[str] = []
        self.notes: list[str] = []
        self.services: dict[str, Service] = {}
        self.disks: list[SmallDisk] = []
        self._daemon: subprocess.Popen[bytes] | None = None
        #: Held by whoever stops and starts the private servers.
        self.servers = threading.Lock()
        #: One of it for each push, all for `no_pushes`.
        self.pushes = threading.BoundedSemaphore(PUSHES_AT_ONCE)
        self._nobody_pushes = threading.Lock()
        #: Held by whoever gives commands, or looks at what they left; nobody else asks for a run again.
        self.terminals = threading.Lock()
        #: Set unless an older dispatcher, or anything older, may be at work; `updating` sees to that.
        self.is_migrated, self.is_updated = threading.Event(), threading.Event()
        self.is_migrated.set()
        self.is_updated.set()
        self.gone: set[str] = set()  #: commits whose run was purged
        self._commits: Sequence[str] = ()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._keep, self._watch)]
        holder.addCleanup(self._closing.set)

    @property
    def bare(self) -> Path:
        """The repository with the hook."""
        return self.ci.folder / f"{REPOSITORY}.git"

    @property
    def twin(self) -> Path:
        """The repository without."""
        return self.ci.folder / f"{TWIN}.git"

    @property
    def workers(self) -> list[Service]:
        """The workers."""
        return [service for name, service in self.services.items() if name.startswith("worker")]

    def prepare(self) -> None:
        """Make the repositories, and the disks of what ciapp keeps, where we may."""
        for state in self._states_to_be():
            with suppress(unittest.SkipTest):
                self.disks.append(SmallDisk(self._holder, state, DISK_MIB, 0o711))
            if self.ci.is_kept:  # as the disk is not
                copy = ["cp", "-a", str(state), str(self.ci.folder / f"kept-{state.name}")]
                self._holder.addCleanup(subprocess.run, copy, check=False)
        for path in (self.bare, self.twin):
            self.ci.git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
        self.ci.ciapp("hook", "install", str(self.bare), "--name", REPOSITORY)
        self.broker.prepare(self.settings)
        self.backend.prepare(self.state)

    def open(self, commits: Sequence[str]) -> None:
        """Start the services, and watch the runs of these commits."""
        self._commits = commits
        port = f"--port={free_port()}"
        if self.hosts:
            self._serve_repositories(self.hosts.git)
        self.services["dispatcher"] = Service(self.ci, "dispatcher", "dispatcher")
        for number in self._worker_numbers:
            name = f"worker-{number}"
            words = ("worker", "-n", f"{name}@%h", f"--concurrency={SLOTS}")
            # The embedded broker is in the state folder; others are there for workers on many hosts.
            own = {} if self._is_embedded else {"CIAPP_STATE_DIR": str(self.state_of(number))}
            own |= {"CIAPP_HOST": name} if self.hosts else {}
            host = self.hosts.workers[number - 1] if self.hosts else None
            self.services[name] = Service(self.ci, name, *words, host=host, **own)
        self.services["monitor"] = Service(self.ci, "monitor", "monitor", port)
        for thread in self._threads:
            thread.start()

    def restart_machine(self) -> None:
        """Everything is killed at once, and started again with what is on the disks."""
        with self.servers:
            servers = [each for each in (self.broker.server, self.backend.server) if each is not None]
            for service in self.services.values():
                service.strike(signal.SIGKILL, whole_group=True)
            for server in servers:
                server.kill()
            for server in servers:
                server.start()

    @contextmanager
    def no_pushes(self) -> Iterator[None]:
        """A block in which nobody pushes, as git would refuse; it begins once what is being pushed is there.

        `git gc` removes empty folders that a push needs; and a repository may be away, or damaged.
        """
        with self._nobody_pushes, ExitStack() as stack:
            for _ in range(PUSHES_AT_ONCE):
                stack.enter_context(self.pushes)
            yield

    def server_pids(self) -> set[int]:
        """The private servers' processes."""
        servers = (self.broker.server, self.backend.server)
        return {server.pid for server in servers if server is not None}

    def state_of(self, worker: int) -> Path:
        """The state folder of a worker on a host of its own."""
        return self.ci.folder / f"state-of-worker-{worker}"

    def states(self) -> list[Path]:
        """Every state folder."""
        return [self.state, *sorted(self.ci.folder.glob("state-of-worker-*"))]

    def logs(self) -> list[Path]:
        """What each service has said, and the last dispatcher that a hook has started."""
        return sorted([*self.ci.folder.glob("*.log"), *self.bare.glob("ciapp/*.log")])

    @property
    def _worker_numbers(self) -> range:
        return range(1, 1 + (len(self.hosts.workers) if self.hosts else WORKERS))

    @property
    def _is_embedded(self) -> bool:
        return self.broker.url.startswith("embedded")

    def _states_to_be(self) -> list[Path]:
        own = [] if self._is_embedded else [self.state_of(number) for number in self._worker_numbers]
        return [self.state, *own]

    def _new_clock(self) -> Clock | None:
        try:
            return Clock(self.ci.folder)
        except (unittest.SkipTest, AssertionError):  # there is no compiler
            return None

    def close(self) -> None:
        """Stop the services in good order."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        for service in self.services.values():
            service.stop()
        for service in self.services.values():
            try:
                service.process.wait(60)
            except subprocess.TimeoutExpired:
                self.violations.append(f"{service.name} did not end within 60 s of SIGTERM")
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(60)

    def _serve_repositories(self, host: Host) -> None:
        """git's own protocol, for workers elsewhere."""
        daemon = ("git", "daemon", f"--base-path={self.ci.folder}", "--export-all", "--reuseaddr")
        self._daemon = self.ci.start_program(*daemon, f"--listen={host.address}", log="git-daemon")

    def _keep(self) -> None:
        ended_at: dict[str, float] = {}
        while not self._closing.wait(LOOK_EVERY_S):
            for service in self.services.values():
                if service.process.poll() is None:
                    ended_at.pop(service.name, None)
                elif (
                    time.monotonic() - ended_at.setdefault(service.name, time.monotonic()) >= RESTART_AFTER_S
                ):
                    if said := service.mend():
                        self.violations.append(said)
                    ended_at.pop(service.name)

    def _watch(self) -> None:
        while not self._closing.wait(2 * LOOK_EVERY_S):
            with suppress(LedgerError):
                self.look()

    def look(self) -> RunsSeen:
        """Ask the ledger. Raises LedgerError."""
        gone = set(self.gone)  # asked for first: what was purged since counts as there
        runs = tuple(find_runs(self.database, REPOSITORY, self._commits))
        self.seen = RunsSeen(runs, len(gone - {run.commit for run in runs}))
        return self.seen
