"""Real Celery workers for tests, over the application of `tests.support.celery_app`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def wait_until(happened: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
    """What `happened` returned when it was first true; fails when that takes too long."""
    until = time.monotonic() + within_s
    while not (answer := happened()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {within_s} s in vain for {what}")
        time.sleep(0.02)
    return answer


class Workplace:
    """A broker, a folder for what tasks leave, and the workers there."""

    def __init__(self, test: unittest.TestCase, broker: str = "embedded://", **environment: str) -> None:
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self._test = test
        self._environment = os.environ | {"BROKER": broker, "FOLDER": folder.name} | environment

    def start_worker(self, name: str, *options: str) -> Worker:
        """A worker of two slots that is ready to work."""
        worker = Worker(self.folder, name, self._environment, options)
        self._test.addCleanup(worker.kill)
        wait_until(worker.is_ready, f"worker {name}: {worker.said()}")
        return worker

    def send(self, task: str, name: str) -> None:
        """Send a task from a process of its own."""
        self.python(f"app.send_task({task!r}, args=[{name!r}])")

    def python(self, code: str) -> str:
        """What a program prints that has the application as `app`."""
        program = f"from tests.support.celery_app import *\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout

    def start_program(self, code: str) -> subprocess.Popen[bytes]:
        """A program that has the application as `app`, and goes on."""
        program = f"from tests.support.celery_app import *\n{code}"
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=self._environment)
        self._test.addCleanup(process.wait)
        self._test.addCleanup(process.kill)
        return process

    def raise_flag(self, name: str) -> None:
        """Let the task that holds this name end."""
        (self.folder / name).touch()

    def journal(self, what: str = "", name: str = "") -> list[dict[str, Any]]:
        """What tasks noted, in order."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [each for each in entries if what in ("", each["what"]) and name in ("", each["name"])]

    def wait_for(self, what: str, name: str, times: int = 1, within_s: float = 30.0) -> list[dict[str, Any]]:
        """The notes of that kind, once there are so many."""

        def enough() -> list[dict[str, Any]]:
            found = self.journal(what, name)
            return found if len(found) >= times else []

        found: list[dict[str, Any]] = wait_until(enough, f"{times} x {what} {name}", within_s)
        return found


class Worker:
    """A process of `celery worker`."""

    def __init__(
        self, folder: Path, name: str, environment: dict[str, str], options: tuple[str, ...]
    ) -> None:
        self._log = folder / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", "tests.support.celery_app", "worker", "-l", "INFO"]
        command += ["-n", f"{name}@test", "-c", "2", "--without-mingle", "--without-gossip", *options]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether it consumes."""
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended: {self.said()}")
        return " ready." in self.said()

    def said(self) -> str:
        """Its log."""
        return self._log.read_text(errors="replace")

    def is_alive(self) -> bool:
        """Whether its main process runs."""
        return self.process.poll() is None

    def kill_main(self) -> None:
        """kill -9 of the main process alone."""
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(within_s)

    def kill(self) -> None:
        """kill -9 of all its processes."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()
