"""A broker that is away: whoever needs it tries ever more rarely, and is there soon after it is back."""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable
from typing import Any

import pytest

from ciapp.intake.backoff import ASKED_PAUSE_S, LONGEST_PAUSE_S
from tests.support.aftermath import assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import DEADLINE_S, PASSING, Installation, eventually
from tests.support.proxy import SlammingProxy
from tests.support.servers import PrivateRabbitMQ, PrivateRedis, PrivateServer

AT_ONCE_S = 10.0  #: on a machine that does much else
ASKED_FOR_S = 2.5  #: a hook may have asked for attempts until then
GROWS_S = 0.5  #: one pause beyond the one before, at least


class Away:
    """A server of the test's own behind a door at which knocks are counted."""

    lease_s = 30.0

    def new_broker(self) -> PrivateServer:
        raise NotImplementedError

    def new_installation(self, *settings: str) -> Installation:
        self.broker = self.new_broker()
        self.door = SlammingProxy(self, self.broker.port)
        url = self.broker.url.replace(f":{self.broker.port}/", f":{self.door.port}/")
        return Installation(self, *settings, broker=url)

    def push(self) -> str:
        return self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, f"{time.monotonic()}")

    def eventually(self, look: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait for it; when it never is, say who came when, and what they said."""
        try:
            eventually(look, what, deadline_s)
        except AssertionError as error:
            now = time.monotonic()
            ago = [f"{now - knock:.1f}" for knock in self.door.knocks]
            raise AssertionError(f"{error}; connections {ago} s ago; {self.ci.logs()}") from None

    def attempts(self, since: float) -> list[float]:
        """When somebody tried to connect; each attempt is one connection."""
        return [knock for knock in self.door.knocks if knock >= since]

    def assert_pauses_grow(self, since: float) -> None:
        self.eventually(lambda: self.attempts(since), "somebody notices that the broker is away")
        calm = self.attempts(since)[0] + ASKED_FOR_S
        self.eventually(lambda: len(self.attempts(calm)) >= 3, "it is tried three times")
        first, second, third = self.attempts(calm)[:3]
        self.assertGreater(third - second, second - first + GROWS_S)

    def test_the_dispatcher_records_pushes_at_once_and_sends_within_the_pause(self) -> None:
        self.eventually(lambda: self.door.knocks, "the dispatcher has been at the broker")
        self.broker.stop()
        stopped = time.monotonic()
        first = self.push()
        self.assert_pauses_grow(stopped)

        pushed = time.monotonic()
        second = self.push()
        self.eventually(lambda: self.ci.runs(second), "the push is recorded", AT_ONCE_S)
        self.eventually(lambda: self.attempts(pushed), "the broker is tried", ASKED_PAUSE_S + AT_ONCE_S)

        self.broker.start()
        self.eventually(
            lambda: all(run.sent_token for one in (first, second) for run in self.ci.runs(one)),
            "both are sent",
            # An attempt that was under way when the broker came back may yet fail, and takes its time here.
            LONGEST_PAUSE_S + 3 * AT_ONCE_S,
        )
        self.start_worker()
        assert_one_right_report_each(self, self.ci, [first, second])

    def test_a_worker_comes_back(self) -> None:
        worker = self.start_worker()
        tested = self.push()
        self.ci.report(tested)
        dispatcher = self.ci.processes[0]
        dispatcher.terminate()  # the worker alone is to be counted
        dispatcher.wait()
        self.broker.stop()
        self.assert_pauses_grow(time.monotonic())

        self.broker.start()
        self.ci.start("dispatcher")
        assert_one_right_report_each(self, self.ci, [tested, self.push()])
        self.assertIsNone(worker.poll())


class TestRedis(Away, HeldRuns):
    def new_broker(self) -> PrivateServer:
        return PrivateRedis(self)


@pytest.mark.slow  # what tries is the same, and waits most of its time
class TestRabbitmq(Away, HeldRuns):
    def new_broker(self) -> PrivateServer:
        return PrivateRabbitMQ(self)


if __name__ == "__main__":
    unittest.main()
