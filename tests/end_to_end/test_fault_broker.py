"""Brokers that freeze, stop, die, forget, repeat themselves or deliver garbage: the ledger decides."""

from __future__ import annotations

import subprocess
import sys
import time
import unittest
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from ciapp.results import schema
from ciapp.results.attempts import REPORTED
from ciapp.results.queue import RESEND_AFTER_S
from ciapp.results.report import State
from ciapp.results.runs import Run
from ciapp.results.workers import list_workers
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import PASSING, Installation, eventually
from tests.support.ledgers import fresh_postgresql_url
from tests.support.servers import PrivateRabbitMQ, PrivateRedis, PrivateServer

PUSH_WITHIN_S = 5.0  #: on a machine that does much else
RECORDED_WITHIN_S = 15.0


class BrokerTest(HeldRuns):
    """Pushes, and a broker that has a fault."""

    lease_s = 30.0  #: so that no fault here costs an attempt

    def send(self, messages: Mapping[str, str]) -> None:
        """Send messages to the workers: task id → the task's arguments, as Python writes them."""
        lines = ["from ciapp.celery import QUEUE, app"]
        for task_id, arguments in messages.items():
            lines.append(f"app.send_task('ciapp.run_commit', {arguments}, task_id={task_id!r}, queue=QUEUE)")
        command = [sys.executable, "-c", "\n".join(lines)]
        subprocess.run(command, env=self.ci.environment, check=True, timeout=60)

    def push(self, number: int = 1) -> list[str]:
        """Push commits one by one; returns them."""
        files = {"tests/test_a.py": PASSING}
        return [self.ci.push_commit(self.clone, files, f"{time.monotonic()}") for _ in range(number)]

    def wait_for_messages(self, commits: list[str]) -> None:
        """Until a message is under way for each of these commits."""
        find = self.ci.runs
        eventually(lambda: all([each.sends for each in find(one)] == [1] for one in commits), "all are sent")

    def assert_tested_once(self, commits: list[str]) -> None:
        attempts = assert_one_right_report_each(self, self.ci, commits)
        self.assertEqual([[REPORTED]] * len(commits), [[one.ending for one in each] for each in attempts])


class Messages:
    """Messages that should not be."""

    def deliver_again(self, run: Run) -> None:
        """The run's own message, once more, and messages of attempts that are none."""
        numbers = (run.attempt, run.attempt + 1, 0, 99)
        self.send({f"team:{run.commit[:12]}:{run.id}:{each}": f"({run.id}, {each})" for each in numbers})

    def test_deliveries_that_come_twice_late_or_for_no_attempt_change_nothing(self) -> None:
        self.start_worker("first")
        self.start_worker("second")
        held = self.push_held()
        run = self.running(held)
        self.deliver_again(run)
        [other] = self.push()
        self.assert_tested_once([other])  # what was sent before it has been looked at
        self.assertEqual((State.RUNNING, 1), (self.only_run(held).state, self.only_run(held).attempt))
        self.let_go(run)
        self.ci.report(held)
        self.deliver_again(run)
        self.assert_tested_once([held, *self.push()])
        assert_nothing_is_left(self.ci)

    def test_arguments_that_are_garbage_hurt_nothing(self) -> None:
        worker = self.start_worker()
        kinds = ("()", "('x', {})", "(None, None)", "(10**30, 1)", "(1, 1, 1)", "([], 'a' * 100_000)")
        self.send({f"garbage {number}": kind for number, kind in enumerate(kinds)})
        self.assert_tested_once(self.push(2))
        self.assertIsNone(worker.poll())


class TestEmbedded(Messages, BrokerTest):
    def test_torn_empty_and_foreign_files_in_its_folder_are_put_aside(self) -> None:
        worker = self.start_worker()
        self.assert_tested_once(self.push())
        folder = self.ci.folder / "state" / "broker"
        queue = folder / "queues" / "ciapp"
        name = f"5-{time.time_ns():020d}-abc!0"
        garbage = {
            "foreign.txt": b"hello",
            name: b'{"body": "torn',
            f"{name}1": b"",
            f"{name}2": b"\0" * 4096,
        }
        for place in (queue, folder / "owners", folder / "exchanges", folder / "waiting", folder):
            for each, content in garbage.items():
                (place / each).write_bytes(content)
        self.assert_tested_once(self.push(3))
        self.assertIsNone(worker.poll())
        eventually(
            lambda: not [each for each in garbage if (queue / each).exists()], "the queue has none of it"
        )

    def test_an_emptied_folder_is_filled_again(self) -> None:
        worker = self.start_worker()
        held = self.push_held()
        run = self.running(held)
        waiting = self.push(3)
        self.wait_for_messages(waiting)
        for message in (self.ci.folder / "state" / "broker" / "queues" / "ciapp").iterdir():
            message.unlink()
        self.let_go(run)
        forget_sending(self.ci)
        self.assert_tested_once([held, *waiting])
        self.assertIsNone(worker.poll())


class ServerTest(BrokerTest):
    """A broker that is a server of the test's own, and PostgreSQL."""

    def new_installation(self, *settings: str) -> Installation:
        self.broker = self.new_broker()
        url = fresh_postgresql_url(self).replace("postgresql+psycopg://", "postgresql://")
        return Installation(self, *settings, broker=self.broker.url, database=url)

    def new_broker(self) -> PrivateServer:
        raise NotImplementedError

    def prepare_to_kill(self) -> None:
        """What the broker needs so that kill -9 does not cost it what it said was safe."""


class Faults:
    """What a server may do."""

    def test_while_it_is_frozen_pushes_are_recorded_all_the_same(self) -> None:
        self.start_worker()
        self.assert_tested_once(self.push())
        with self.broker.frozen():
            first = self.push()
            eventually(lambda: self.ci.runs(first[0]), "the push is recorded")
            second = self.push()  # the dispatcher waits for the broker meanwhile
            eventually(
                lambda: self.ci.runs(second[0]), f"the next one too: {self.ci.logs()}", RECORDED_WITHIN_S
            )
        forget_sending(self.ci)
        self.assert_tested_once([*first, *second])

    def test_while_it_is_stopped_pushes_go_on_and_are_tested_when_it_is_back(self) -> None:
        worker = self.start_worker()
        self.assert_tested_once(self.push())
        self.broker.stop()
        commits = []
        for _ in range(3):
            started = time.monotonic()
            commits += self.push()
            self.assertLess(time.monotonic() - started, PUSH_WITHIN_S)
        eventually(lambda: all(self.ci.runs(commit) for commit in commits), "the pushes are recorded")
        eventually(lambda: "broker away" in self.ci.logs(), "the dispatcher says so")
        self.broker.start()
        self.assert_tested_once(commits)
        self.assertIsNone(worker.poll())
        assert_nothing_is_left(self.ci)

    def test_killed_in_mid_run_it_costs_no_attempt(self) -> None:
        self.prepare_to_kill()
        worker = self.start_worker()
        held = self.push_held()
        run = self.running(held)
        waiting = self.push(2)
        self.broker.kill()
        eventually(lambda: "Connection to broker lost" in self.ci.logs(), "the worker sees it")
        self.broker.start()
        self.let_go(run)
        forget_sending(self.ci)
        self.assert_tested_once([held, *waiting])
        self.assertIsNone(worker.poll())
        assert_nothing_is_left(self.ci)


class TestRabbitmq(Faults, ServerTest):
    def new_broker(self) -> PrivateServer:
        return PrivateRabbitMQ(self)

    @pytest.mark.slow  # how long a dispatcher waits for an answer is the same for every broker
    def test_while_it_is_frozen_pushes_are_recorded_all_the_same(self) -> None:
        super().test_while_it_is_frozen_pushes_are_recorded_all_the_same()

    @pytest.mark.slow  # the short drill does it too
    def test_while_it_is_stopped_pushes_go_on_and_are_tested_when_it_is_back(self) -> None:
        super().test_while_it_is_stopped_pushes_go_on_and_are_tested_when_it_is_back()

    def prepare_to_kill(self) -> None:
        early = self.start_worker("early")
        eventually(lambda: list_workers(self.ci.database), "the worker is there, and has declared the queue")
        early.terminate()
        early.wait()
        self.broker.stop()
        self.broker.start()


class TestRedis(Messages, Faults, ServerTest):
    broker: PrivateRedis

    def new_broker(self) -> PrivateServer:
        return PrivateRedis(self)

    def test_emptied_in_mid_run_it_is_filled_again(self) -> None:
        worker = self.start_worker()
        held = self.push_held()
        run = self.running(held)
        waiting = self.push(3)
        self.wait_for_messages(waiting)
        self.broker.run("redis-cli", "-p", str(self.broker.port), "FLUSHALL")
        self.let_go(run)
        forget_sending(self.ci)
        self.assert_tested_once([held, *waiting, *self.push(2)])
        self.assertIsNone(worker.poll())
        assert_nothing_is_left(self.ci)


def forget_sending(ci: Installation) -> None:
    """Let messages that were sent look old enough to be sent again."""
    moment = datetime.now(UTC) - timedelta(seconds=2 * RESEND_AFTER_S)
    with ci.database.write() as connection:
        connection.execute(update(schema.runs).where(schema.runs.c.sends > 0).values(sent_at=moment))


if __name__ == "__main__":
    unittest.main()
