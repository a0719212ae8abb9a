"""Fetches that hang, whose run is taken away or whose worker is killed, leave nothing at work behind."""

from __future__ import annotations

import fcntl
import os
import signal
import time
import unittest
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from ciapp.errors import CheckoutError, StaleAttemptError
from ciapp.testing import fetching, mirror
from ciapp.testing.mirror import Mirror
from ciapp.testing.slot import take_slot
from tests.support.git_repositories import WorkTree, new_folder
from tests.support.installation import eventually
from tests.support.processes import GONE_WITHIN_S, processes_with
from tests.support.silence import SilentServer

COMMIT = "1" * 40
#: In place of ssh: runs here what is to run there. git asks with -G whether it is OpenSSH.
HERE = 'here() {{ [ "$1" != -G ] || exit 1; shift; {}; }}; here'


class Fetches(unittest.TestCase):
    def setUp(self) -> None:
        self.state = new_folder(self) / "state"
        self.word = f"/{uuid.uuid4().hex}"  # in the command line of each git, and of what it starts
        self.stop = False

    def mirror(self, should_stop: Callable[[], bool] | None = None) -> Mirror:
        return Mirror(self.state, "team", should_stop=should_stop or (lambda: self.stop))

    def at_work(self) -> list[int]:
        return processes_with(self.word)

    def use_ssh(self, script: str) -> None:
        self.enterContext(mock.patch.dict(mirror.ENVIRONMENT, {"GIT_SSH_COMMAND": HERE.format(script)}))

    def stop_when(self, url: str, is_reached: Callable[[], object], what: str) -> float:
        """Stop a fetch in the middle; how long it took to end, in seconds."""
        with ThreadPoolExecutor() as pool:
            fetched = pool.submit(self.mirror().ensure_commit, url, COMMIT)
            try:
                eventually(is_reached, what)
            finally:
                self.stop, began_s = True, time.monotonic()
            with self.assertRaisesRegex(StaleAttemptError, "was stopped while its commit was fetched"):
                fetched.result()
            return time.monotonic() - began_s


class TestStopped(Fetches):
    def test_a_server_that_never_answers_is_left(self) -> None:
        server = SilentServer(self)
        took_s = self.stop_when(
            f"git://{server.address}{self.word}", lambda: server.connections, "it is connected"
        )
        self.assertLess(took_s, GONE_WITHIN_S)
        self.assertEqual([], self.at_work())

    def test_helpers_of_git_end_with_it(self) -> None:
        server = SilentServer(self)
        took_s = self.stop_when(
            f"http://{server.address}{self.word}", lambda: server.connections, "it is connected"
        )
        self.assertLess(took_s, GONE_WITHIN_S)
        eventually(lambda: not self.at_work(), "all are gone", GONE_WITHIN_S)

    def test_an_ssh_that_hears_of_nothing_ends_too(self) -> None:
        self.use_ssh("trap '' TERM HUP; sleep 654.5 <&- >&- 2>&-")
        url = f"ssh://host{self.word}"
        took_s = self.stop_when(url, lambda: processes_with("654.5"), "ssh runs")
        self.assertLess(took_s, GONE_WITHIN_S)
        eventually(lambda: not self.at_work() and not processes_with("654.5"), "all are gone", GONE_WITHIN_S)

    def test_a_run_that_is_stopped_already_starts_nothing(self) -> None:
        server = SilentServer(self)
        self.stop = True
        with self.assertRaises(StaleAttemptError):
            self.mirror().ensure_commit(f"git://{server.address}{self.word}", COMMIT)
        self.assertEqual(0, server.connections)

    def test_who_waits_for_another_ones_fetch_is_let_go(self) -> None:
        path = self.state / "mirrors" / "team.lock"
        path.parent.mkdir(parents=True)
        looks: list[None] = []
        waiting = self.mirror(lambda: bool(looks.append(None)) or self.stop)
        with path.open("w") as fetch, ThreadPoolExecutor() as pool:
            fcntl.flock(fetch, fcntl.LOCK_EX)
            fetched = pool.submit(waiting.ensure_commit, "/nowhere", COMMIT)
            try:
                eventually(lambda: looks, "it waits")
            finally:
                self.stop, began_s = True, time.monotonic()
            with self.assertRaises(StaleAttemptError):
                fetched.result(GONE_WITHIN_S)
            self.assertLess(time.monotonic() - began_s, GONE_WITHIN_S)

    def test_a_submodules_fetch_is_stopped_as_well(self) -> None:
        self.stop = True
        with self.assertRaises(StaleAttemptError):
            self.mirror().of_submodule("key").ensure_commit("/nowhere", COMMIT)

    def test_a_fetch_that_takes_too_long_fails(self) -> None:
        url = f"git://{SilentServer(self).address}{self.word}"
        with (
            mock.patch.object(fetching, "WITHIN_S", 0.5),
            self.assertRaisesRegex(CheckoutError, f"from {url}: git fetch in .* took longer than"),
        ):
            self.mirror().ensure_commit(url, COMMIT)
        self.assertEqual([], self.at_work())


class TestSlow(Fetches):
    def setUp(self) -> None:
        super().setUp()
        self.origin = WorkTree(self, self.state)
        self.url = f"ssh://host{self.origin.path}"

    def test_a_slow_fetch_is_waited_for(self) -> None:
        self.use_ssh('sleep 1; eval "$*"')
        self.mirror().ensure_commit(self.url, self.origin.commit("Change", {"a.py": ""}))

    def test_an_ssh_that_keeps_its_connection_is_neither_waited_for_nor_ended(self) -> None:
        self.use_ssh('setsid sleep 654.75 <&- >&- & eval "$*"')
        self.addCleanup(lambda: [os.kill(pid, signal.SIGKILL) for pid in processes_with("654.75")])
        for _ in range(2):  # the second time, with the first one's descriptors open
            self.mirror().ensure_commit(self.url, self.origin.commit())
        self.assertEqual(2, len(processes_with("654.75")))

    def test_a_server_that_says_no_is_told(self) -> None:
        self.use_ssh("echo fatal: no such user >&2; exit 3")
        with self.assertRaisesRegex(CheckoutError, "git fetch failed in .*: fatal: "):
            self.mirror().ensure_commit(self.url, COMMIT)


class TestKilled(Fetches):
    """The process that fetches is killed, as a worker is."""

    def fetch_and_be_killed(self, url: str, is_reached: Callable[[], object]) -> None:
        worker = os.fork()
        if worker == 0:
            try:
                slot = take_slot(self.state)
                Mirror(self.state, "team", mark=slot.identity.mark).ensure_commit(url, COMMIT)
            finally:
                os._exit(1)
        try:
            eventually(is_reached, "it fetches")
        finally:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)

    def test_what_it_fetched_with_dies_too(self) -> None:
        for protocol in ("git", "http"):
            with self.subTest(protocol):
                server = SilentServer(self)
                self.fetch_and_be_killed(
                    f"{protocol}://{server.address}{self.word}", lambda server=server: server.connections
                )
                eventually(lambda: not self.at_work(), "all are gone", GONE_WITHIN_S)

    def test_nobody_works_on_the_mirror_before_that(self) -> None:
        server = SilentServer(self)
        with mock.patch("ciapp.testing.slot.WAIT_AND_SWEEP", "cat"):  # nobody sweeps
            self.fetch_and_be_killed(f"git://{server.address}{self.word}", lambda: server.connections)
        left = self.at_work()
        self.assertTrue(left)
        self.addCleanup(lambda: [os.kill(pid, signal.SIGKILL) for pid in self.at_work()])
        origin = WorkTree(self, self.state)
        commit = origin.commit()
        looks: list[None] = []
        waiting = self.mirror(lambda: bool(looks.append(None)))
        with ThreadPoolExecutor() as pool:
            fetched = pool.submit(waiting.ensure_commit, str(origin.path / ".git"), commit)
            try:
                eventually(lambda: looks, "it waits for what is left")
                self.assertFalse(fetched.done())
            finally:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
            fetched.result(GONE_WITHIN_S * 5)


if __name__ == "__main__":
    unittest.main()
