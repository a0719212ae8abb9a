"""The mends: the fault shown without them, and gone with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import unittest
import uuid
from typing import Any
from unittest import mock

import pytest
from kombu import Connection
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

from ciapp.connection import GIVE_BACK_WITHIN_S, broker_options
from ciapp.mends.redis import Channel
from ciapp.settings import Limits, Settings
from tests.support.processes import pool_processes
from tests.support.servers import PrivateRabbitMQ, PrivateRedis, standard_rabbitmq_url
from tests.support.workers import ROOT, Worker, Workplace, wait_until

UNMENDED = {"MENDS": "0"}
STAYS_S = 5.0  #: is no sign of an end, where the mended worker ends within a second
WITHOUT_MEND_S = 25.0  #: a worker that is not mended needs longer
#: Puts messages on the queue that are no tasks, and after each a task that tells what was before it.
GARBAGE = """
def put(body, headers):
    message = {"content_type": "application/json", "content_encoding": "utf-8", "headers": headers}
    with app.connection_for_write() as connection, connection.channel() as channel:
        app.conf.task_queues[0](channel).declare()
        prepared = channel.prepare_message(body, **message, properties={"delivery_mode": 2})
        channel.basic_publish(prepared, exchange="", routing_key=QUEUE)
    app.send_task("tell", args=[kind])

task = {"task": "tell", "id": "1", "lang": "py"}
no_arguments = "[[], {}, {}]"
"""
KINDS = {
    "body is a number": "put('42', task)",
    "body is null": "put('null', task)",
    "body is torn": "put('[[1', task)",
    "arguments are numbers": "put('[1, 2, 3]', task)",
    "task is a list": "put(no_arguments, {**task, 'task': ['tell']})",
    "id is an object": "put(no_arguments, {**task, 'id': {}})",
    "time limit is a number": "put(no_arguments, {**task, 'timelimit': 5})",
    "expiry is an object": "put(no_arguments, {**task, 'expires': {}})",
    "headers are missing": "put(no_arguments, {})",
    "task is unknown": "put(no_arguments, {**task, 'task': 'no.such'})",
}


def garbage(*kinds: str) -> str:
    """A program that puts garbage of these kinds on the queue."""
    return GARBAGE + "".join(f"kind = {kind!r}\n{KINDS[kind]}\n" for kind in kinds)


class TestRedisRestart(unittest.TestCase):
    """Redis is killed and comes back on its port while a task runs."""

    def restart_in_mid_task(self, **environment: str) -> tuple[Workplace, Worker]:
        server = PrivateRedis(self)
        place = Workplace(self, server.url, **environment)
        worker = place.start_worker("a")
        place.send("hold", "x")
        place.wait_for("begin", "x")
        server.kill()
        wait_until(lambda: "Connection to broker lost" in worker.said(), "the worker to see it")
        server.start()
        return place, worker

    def test_without_the_mend_the_worker_ends(self) -> None:
        place, worker = self.restart_in_mid_task(**UNMENDED)
        place.raise_flag("x")

        wait_until(lambda: not worker.is_alive(), "the worker's end", 30)

        self.assertIn("Unrecoverable error: AttributeError", worker.said())
        self.assertIn("'NoneType' object has no attribute 'hostname'", worker.said())

    def test_with_the_mend_the_worker_goes_on(self) -> None:
        place, worker = self.restart_in_mid_task()
        place.raise_flag("x")
        place.wait_for("end", "x")

        place.send("tell", "y")

        place.wait_for("told", "y")
        self.assertTrue(worker.is_alive())
        self.assertNotIn("Unrecoverable error", worker.said())


#: A process that takes a message, and is killed while it gives back what others did not acknowledge.
KILLED_GIVING_BACK = """
import os, signal, sys
from kombu import Connection
from kombu.transport.redis import Mutex
from tests.test_mends import redis_options
channel = Connection(sys.argv[1], transport_options=redis_options()).channel()
assert channel.basic_get("runs")
with Mutex(channel.client, channel.unacked_mutex_key, channel.unacked_mutex_expire):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def redis_options() -> dict[str, Any]:
    """What ciapp tells kombu, for runs of a second."""
    return broker_options(Settings(broker_url="redis://", limits=Limits(run_s=1)))


class TestRedisGivesBack(unittest.TestCase):
    def test_a_worker_killed_while_it_gives_messages_back_locks_nobody_out_for_long(self) -> None:
        server = PrivateRedis(self)
        connection = Connection(server.url, transport_options=redis_options())
        self.addCleanup(connection.close)
        connection.SimpleQueue("runs").put("a message")
        command = [sys.executable, "-c", KILLED_GIVING_BACK, server.url]
        self.assertEqual(-signal.SIGKILL, subprocess.run(command, cwd=ROOT, check=False).returncode)
        channel = connection.channel()

        def given_back() -> bool:
            channel.qos.restore_visible(interval=1)  # each second, in a worker
            return channel.basic_get("runs") is not None

        wait_until(given_back, "the message is given back", GIVE_BACK_WITHIN_S + 10)


class TestRedisChannel(unittest.TestCase):
    """The mend changes nothing where kombu behaves."""

    def setUp(self) -> None:
        self.channel = Channel.__new__(Channel)

    def test_what_a_mended_kombu_answers_is_handed_on(self) -> None:
        self.channel.connection = mock.Mock(client=None)
        with mock.patch.object(kombu_redis.Channel, "_connparams", return_value={"host": "here"}):
            self.assertEqual({"host": "here"}, self.channel._connparams())

    def test_another_attribute_error_is_not_hidden(self) -> None:
        self.channel.connection = mock.Mock()
        fault = AttributeError("something else")
        with (
            mock.patch.object(kombu_redis.Channel, "_connparams", side_effect=fault),
            self.assertRaisesRegex(AttributeError, "something else"),
        ):
            self.channel._connparams()

    def test_a_lost_connection_is_a_connection_error(self) -> None:
        self.channel.connection = mock.Mock(client=None)
        with self.assertRaises(RedisConnectionError):
            self.channel._connparams()


class TestGarbage(unittest.TestCase):
    """Messages that are no tasks."""

    def assert_survived(self, place: Workplace, worker: Worker) -> None:
        place.python(garbage(*KINDS))
        for kind in KINDS:
            with self.subTest(kind):
                place.wait_for("told", kind)
        self.assertTrue(worker.is_alive())

    def test_without_the_mend_the_worker_ends(self) -> None:
        place = Workplace(self, **UNMENDED)
        worker = place.start_worker("a")

        place.python(garbage("body is a number"))

        wait_until(lambda: not worker.is_alive(), "the worker's end")
        self.assertIn("Unrecoverable error: TypeError", worker.said())

    def test_a_worker_on_the_embedded_broker_survives(self) -> None:
        place = Workplace(self)

        self.assert_survived(place, place.start_worker("a"))

        self.assertEqual([], list((place.folder / "broker").glob("owners/*/*!*")))

    def test_a_worker_on_redis_survives(self) -> None:
        server = PrivateRedis(self)
        place = Workplace(self, server.url)
        worker = place.start_worker("a")
        for element in ("garbage", "{}", "[]", "null"):
            with Connection(server.url) as connection:
                connection.default_channel.client.lpush("ciapp-test", element)

        self.assert_survived(place, worker)

        self.assertEqual(4, worker.said().count("not a message, dropped"))

    def test_a_worker_on_rabbitmq_survives_and_declares_no_queues_for_delays(self) -> None:
        url = standard_rabbitmq_url()
        queue = f"ciapp-test-{uuid.uuid4().hex[:12]}"

        def delete() -> None:
            with Connection(url) as connection:
                connection.default_channel.queue_delete(queue)
                connection.default_channel.exchange_delete(queue)

        self.addCleanup(delete)
        place = Workplace(self, url, QUEUE=queue)
        worker = place.start_worker("a")

        self.assert_survived(place, worker)

        self.assertNotIn("delayed delivery", worker.said())


class TestLostQueue(unittest.TestCase):
    @pytest.mark.slow  # RabbitMQ takes 65 s to say that a queue is lost
    def test_one_that_was_declared_just_before_rabbitmq_was_killed_is_made_anew(self) -> None:
        server = PrivateRabbitMQ(self)
        place = Workplace(self, server.url)
        worker = place.start_worker("a")
        server.kill()
        server.start()
        wait_until(lambda: "INTERNAL_ERROR" in worker.said(), "the worker to be sent away", 120)

        def is_told() -> bool:
            # Again and again, for a message may be lost with its queue.
            place.send("tell", "x")
            return bool(place.journal("told", "x"))

        wait_until(is_told, "a task to be done", 60)
        self.assertIn("queue lost by its broker; deleted, to be declared anew", worker.said())


class TestStop(unittest.TestCase):
    """A worker is told to stop when its process was given a task, and has not yet said to have begun."""

    def stop_before_it_begins(self, how: signal.Signals, **environment: str) -> tuple[Workplace, Worker]:
        place = Workplace(self, **environment)
        worker = place.start_worker("a", "--concurrency=1")
        [process] = pool_processes(worker.process.pid)
        os.kill(process, signal.SIGSTOP)
        place.send("hold", "x")
        wait_until(lambda: "received" in worker.said(), "the task to be received")
        place.python("assert app.control.ping(timeout=30, limit=1)")  # so it was given to the process by now
        worker.process.send_signal(how)
        place.python("while app.control.ping(timeout=1, limit=1): pass")  # so it has begun to stop
        os.kill(process, signal.SIGCONT)
        return place, worker

    def test_without_the_mend_it_stays_when_its_task_has_ended(self) -> None:
        place, worker = self.stop_before_it_begins(signal.SIGTERM, **UNMENDED)
        place.raise_flag("x")
        place.wait_for("end", "x")

        with self.assertRaises(subprocess.TimeoutExpired):
            worker.process.wait(STAYS_S)

    def test_with_the_mend_it_ends_with_its_task_whose_message_is_acknowledged(self) -> None:
        place, worker = self.stop_before_it_begins(signal.SIGTERM)
        place.raise_flag("x")

        self.assertEqual(0, worker.process.wait(WITHOUT_MEND_S))

        place.wait_for("end", "x")
        self.assertEqual([], list((place.folder / "broker" / "queues").glob("*/*")))

    def test_without_the_mend_a_quick_end_waits_for_the_task(self) -> None:
        _, worker = self.stop_before_it_begins(signal.SIGQUIT, **UNMENDED)

        with self.assertRaises(subprocess.TimeoutExpired):
            worker.process.wait(STAYS_S)

    def test_with_the_mend_a_quick_end_cancels_the_task_whose_message_is_given_back(self) -> None:
        place, worker = self.stop_before_it_begins(signal.SIGQUIT)

        worker.process.wait(WITHOUT_MEND_S)

        # It is cancelled as soon as its process has said to begin it, perhaps before its first line has run.
        self.assertEqual([], place.journal("end", "x"))
        self.assertEqual(1, len(list((place.folder / "broker" / "queues").glob("*/*"))))


if __name__ == "__main__":
    unittest.main()
