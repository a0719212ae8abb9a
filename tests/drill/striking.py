"""What strikes processes, messages, services and the machine of a drill.

In:  a stage; per fault, how long it lasts and a number that picks its victim.
Out: each fault as a function, by its name. It returns once the fault is over.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from ciapp.results.runs import Run
from ciapp.testing.processes import list_children, list_tree
from tests.drill.brokers import Strike
from tests.drill.plan import PlannedFault
from tests.drill.stage import LEASE_S, Service, Stage

AGAIN = 5  #: kills of a dispatcher in a row, and messages sent once more
BETWEEN_KILLS_S = 0.6
STOPS_WITHIN_S = 60.0
TESTS_WITHIN_S = 4.0

#: Faults by which a run may lose its attempt.
COSTLY = {
    "pool process killed",
    "worker killed",
    "worker's group killed",
    "runner killed",
    "worker frozen",
    "run cancelled under a frozen worker",
    "broker killed",
    "broker away",
    "database away",
    "database killed",
    "connections dropped",
    "disk full",
    "repository away",  # of older workers alone
    "object damaged",
    "pack damaged",
    "machine restarted",
    "worker cut off from database",
    "worker cut off from git host",
    "worker cut off from all",
}


class NothingToStrikeError(Exception):
    """What a fault would hit is not there now."""


class Striking:
    """Strikes whoever is there."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.processes: dict[str, Callable[[PlannedFault], None]] = {
            "pool process killed": self._kill_pool_process,
            "worker killed": self._kill_worker,
            "worker's group killed": lambda fault: self._kill_worker(fault, whole_group=True),
            "runner killed": self._kill_runner,
            "worker frozen": self._freeze_worker,
            "workers restarted in turn": lambda fault: self.restart_workers(),
            "dispatcher killed": self._kill_dispatcher,
            "dispatcher restarted": lambda fault: self._dispatcher.strike(signal.SIGTERM),
            "monitor killed": lambda fault: self._stage.services["monitor"].strike(signal.SIGKILL),
            "messages doubled": self._send_again,
            "garbage sent": lambda fault: self._stage.broker.send_garbage(),
        }
        services = stage.broker.faults | stage.backend.faults
        self.services: dict[str, Callable[[PlannedFault], None]] = {
            kind: lambda fault, strike=strike: self._strike_service(strike, fault)  # type: ignore[misc]
            for kind, strike in services.items()
        }
        self.machine: dict[str, Callable[[PlannedFault], None]] = {
            "machine restarted": lambda fault: stage.restart_machine(),
            "disk full": self._fill_disk,
            "clock set back": self._set_clock_back,
        }
        self.network = stage.hosts.faults(LEASE_S) if stage.hosts else {}

    def _strike_service(self, strike: Strike, fault: PlannedFault) -> None:
        with self._stage.servers:
            strike(fault.lasts_s)

    def _fill_disk(self, fault: PlannedFault) -> None:
        """Of the git host's state, with ledger and broker where these are files, or of a worker's."""
        if not self._stage.disks:
            raise NothingToStrikeError("no disk can be mounted here")
        until_s = time.monotonic() + fault.lasts_s
        disk = self._stage.disks[fault.victim % len(self._stage.disks)]
        with disk.full():
            while time.monotonic() < until_s:
                disk.fill()
                time.sleep(0.1)

    def _set_clock_back(self, fault: PlannedFault) -> None:
        """By an hour, under everything that ciapp and git run."""
        clock = self._stage.clock
        if clock is None:
            raise NothingToStrikeError("there is no compiler")
        clock.set(-3600)
        time.sleep(fault.lasts_s)
        clock.set(0)

    @property
    def _dispatcher(self) -> Service:
        return self._stage.services["dispatcher"]

    def _worker(self, fault: PlannedFault) -> Service:
        workers = self._stage.workers
        return workers[fault.victim % len(workers)]

    def _kill_pool_process(self, fault: PlannedFault) -> None:
        # A worker that loses one before it is ready gives up, and is started again: so one that tests.
        busy = self.await_tests(*self._stage.workers)
        if not busy:
            raise NothingToStrikeError("no tests run")
        _kill(busy[fault.victim % len(busy)][0])

    def _kill_worker(self, fault: PlannedFault, *, whole_group: bool = False) -> None:
        worker = self._worker(fault)
        self.await_tests(worker)
        worker.strike(signal.SIGKILL, whole_group=whole_group)

    def _kill_runner(self, fault: PlannedFault) -> None:
        """What holds the sandbox of a run that a worker tests now; not its program, which tests may be."""
        busy = self.await_tests(*self._stage.workers)
        if not busy:
            raise NothingToStrikeError("no tests run")
        _kill(busy[fault.victim % len(busy)][1])

    def _freeze_worker(self, fault: PlannedFault) -> None:
        """For longer than a lease, or a moment."""
        worker = self._worker(fault)
        self.await_tests(worker)
        worker.freeze(signal.SIGSTOP)
        time.sleep(LEASE_S + 2 if fault.victim % 3 else fault.lasts_s / 3)
        worker.freeze(signal.SIGCONT)

    def restart_workers(self) -> None:
        """SIGTERM to one after the other, each once the one before is back."""
        for worker in self._stage.workers:
            starts = worker.starts
            worker.strike(signal.SIGTERM)
            until_s = time.monotonic() + STOPS_WITHIN_S
            while worker.starts == starts:
                if time.monotonic() > until_s:
                    self._stage.violations.append(
                        f"{worker.name} did not end within {STOPS_WITHIN_S:g} s of SIGTERM"
                    )
                    return
                time.sleep(0.05)

    def _kill_dispatcher(self, fault: PlannedFault) -> None:
        for _ in range(1 + fault.victim % AGAIN):
            self._dispatcher.strike(signal.SIGKILL)
            time.sleep(BETWEEN_KILLS_S)

    def _send_again(self, fault: PlannedFault) -> None:
        chance = random.Random(fault.victim)
        runs: tuple[Run, ...] = self._stage.seen.runs
        self._stage.broker.send_again(chance.sample(runs, min(AGAIN, len(runs))), chance)

    def await_tests(self, *workers: Service) -> list[tuple[int, int]]:
        """`tests_of` one of the workers, once it is testing; not for ever, there may be nothing."""
        until_s = time.monotonic() + TESTS_WITHIN_S
        while time.monotonic() < until_s:
            for worker in workers:
                if busy := tests_of(worker):
                    return busy
            time.sleep(0.01)
        return []


def tests_of(worker: Service) -> list[tuple[int, int]]:
    """The pool processes of a worker that are testing now, each with what holds the sandbox of its tests."""
    pool = list_children(worker.process.pid)
    return [(each, runner) for each in pool if (runner := _runner_of(each))]


def _runner_of(pool_process: int) -> int:
    """What holds the sandbox in which tests run now; 0 without one."""
    return next((child for child in list_children(pool_process) if len(list_tree(child)) > 2), 0)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
