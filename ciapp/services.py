"""Dispatcher, worker and monitor as one process tree in the foreground.

In:  which of them to run, and their options.
Out: their processes, each in a session of its own so that Ctrl-C reaches us alone and we stop them in order;
     one that ends by itself is started again, unless what it was told cannot be done. When we are killed,
     the kernel ends them.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import IO

from ciapp.errors import SettingsError, UsageError
from ciapp.settings import Settings
from ciapp.testing.sandbox import check_level

logger = logging.getLogger(__name__)
PR_SET_PDEATHSIG = 1
LOOK_EVERY_S = 0.2
RESTART_AFTER_S, LONGEST_PAUSE_S = 2.0, 60.0  #: the pause doubles while a program does not stay
STAYS_S = 60.0
STOP_WITHIN_S = 45.0  #: longer than the worker lets its tests finish


class Service:
    """One program that is to run as long as we do."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None
    ) -> None:
        self.name = name
        self._log = log
        self._command = [sys.executable, "-m", "ciapp.cli", *arguments]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._pause_s = RESTART_AFTER_S

    def keep_running(self) -> None:
        """Start the program, again if need be, but not sooner than a while after it ended, which grows.

        Raises UsageError when it ended because of what it was told: it would end so again.
        """
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            if code == UsageError.exit_code:
                raise UsageError(f"the {self.name} cannot run, for the reason above; all is stopped")
            logger.error("service ended", extra={"service": self.name, "exit": code})
            self._process = None
            if time.monotonic() - self._start_at > STAYS_S:
                self._pause_s = RESTART_AFTER_S
            self._start_at = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if time.monotonic() >= self._start_at:
            with self._log.open("ab") if self._log else nullcontext() as output:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )

    def ask_to_stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal: SIGTERM means "finish what you do", SIGQUIT "give it back"."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> None:
        """Wait for the end; kill what has not ended by then."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.error("service killed", extra={"service": self.name, "after_s": timeout_s})
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Services:
    """The programs of one machine, worker first: it is the one with something to finish."""

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        port: int | None = None,
        monitor: bool = True,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """Their output goes to `log`, or to where ours goes."""
        environment = os.environ if environment is None else environment
        slots = [f"--concurrency={concurrency}"] if concurrency else []
        self._services = [Service("worker", ["worker", *slots], environment, log)]
        self._services.append(Service("dispatcher", ["dispatcher"], environment, log))
        if monitor:
            where = [f"--port={port}"] if port is not None else []
            self._services.append(Service("monitor", ["monitor", *where], environment, log))

    def keep_running(self) -> None:
        """Start what does not run."""
        for service in self._services:
            service.keep_running()

    def hurry(self) -> None:
        """Do not let tests in flight finish; safe in a signal handler."""
        self._services[0].ask_to_stop(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop all; tests in flight are finished, or queued again."""
        for service in self._services:
            service.ask_to_stop()
        deadline = time.monotonic() + STOP_WITHIN_S
        for service in self._services:
            service.wait(max(0.1, deadline - time.monotonic()))


def run_services(settings: Settings, *, concurrency: int | None, port: int | None, monitor: bool) -> int:
    """Run them until SIGINT or SIGTERM; a second one cuts tests in flight short. Returns the exit code.

    Raises UsageError when they run already, or what they were told cannot be done; SandboxError when tests
    cannot be held as the settings say.
    """
    check_level(settings.sandbox, settings.state_path)
    port = settings.monitor_port if port is None else port
    with _take_lock(settings.state_path):
        if monitor:
            _check_port(settings.monitor_address, port)
            logger.info("monitor", extra={"page": f"http://{settings.monitor_address}:{port}/"})
        services = Services(concurrency=concurrency, port=port, monitor=monitor)
        stopped = threading.Event()

        def stop(_number: int, _frame: FrameType | None) -> None:
            if stopped.is_set():
                services.hurry()
            stopped.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        try:
            while not stopped.is_set():
                services.keep_running()
                stopped.wait(LOOK_EVERY_S)
            logger.info("stopping; tests in flight get 30 s to finish, or none at a second Ctrl-C")
        finally:
            services.stop()
    return 0


def _take_lock(state: Path) -> IO[str]:
    try:
        lock = (state / "up.lock").open("a")
    except OSError as error:
        raise SettingsError(f"{state} cannot be used: {error.strerror}; set state_dir elsewhere") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise UsageError(f"`ciapp up` runs already in {state}; stop it first") from error
    return lock


def _check_port(address: str, port: int) -> None:
    """Raises UsageError when the monitor could not listen there: it would end again and again."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            raise UsageError(
                f"the monitor cannot listen on {address}:{port}: {error.strerror}; "
                "give another --port, or --no-monitor"
            ) from error


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
