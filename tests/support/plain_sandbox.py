"""A sandbox without walls: a real process in a session of its own, for tests of what runs inside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from ciapp.testing.stragglers import GRACE_S

TAG = "CIAPP_PLAIN_SANDBOX"


class PlainSandbox:
    """Starts programs in a folder of the host, with the host's files and network in reach."""

    level = "plain"

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout

    def inside(self, path: Path) -> Path:
        return path

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        pass_fds: Sequence[int] = (),
        readable: Sequence[Path] = (),
    ) -> PlainProcess:
        tag = uuid.uuid4().hex
        own = {"PATH": os.defpath, "HOME": str(self.checkout), "LANG": "C.UTF-8", TAG: tag}
        popen = subprocess.Popen(
            command,
            cwd=self.checkout,
            env={**own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
        return PlainProcess(popen, tag)


class PlainProcess:
    """The process, and whatever carries its tag in the environment."""

    def __init__(self, popen: subprocess.Popen[bytes], tag: str) -> None:
        self._popen = popen
        self._tag = f"{TAG}={tag}".encode()
        self.outlived = 0

    def poll(self) -> int | None:
        return self._popen.poll()

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def watch_stragglers(self) -> None:
        """Counted when it is over."""

    def signal(self, signum: int) -> None:
        self._popen.send_signal(signum)

    def breach(self) -> str:
        return ""

    def kill(self) -> None:
        if self._popen.poll() is not None:
            moment = time.monotonic() + GRACE_S
            while (left := self.descendants()) and time.monotonic() < moment:
                time.sleep(0.005)
            self.outlived = len(left)
            if not left:  # to look through all processes takes milliseconds, and benchmarks call this
                return
        self._popen.kill()
        self._popen.wait()
        deadline = time.monotonic() + 10
        while pids := self.descendants():
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"{pids} outlive SIGKILL"
            time.sleep(0.005)

    def descendants(self) -> list[int]:
        """Processes that carry the tag and still run."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    runs = b") Z" not in (folder / "stat").read_bytes()
                    if runs and self._tag in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
                except OSError:  # gone, or not ours
                    continue
        return found
