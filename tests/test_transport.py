"""The embedded broker under Celery: real workers, kill -9, remote control, events."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import unittest
from pathlib import Path
from statistics import median
from typing import Any

from kombu import Connection, Queue

from ciapp import transport
from ciapp.errors import BrokerError, SettingsError
from tests.support.workers import Workplace, wait_until

#: Consumes events, says so, and holds its connection.
EVENT_CONSUMER = """
import time
with app.connection() as connection:
    receiver = app.events.Receiver(connection, handlers={"*": lambda event: None})
    with receiver.consumer_context():
        (FOLDER / "consuming").touch()
        time.sleep(600)
"""
#: Sends tasks one by one, each when the one before was noted.
SENDER = """
for number in range(12):
    note("sent", name=str(number))
    app.send_task("tell", args=[str(number)])
    while (FOLDER / "journal").read_text().count('"told"') <= number:
        time.sleep(0.002)
"""


class TestChannel(unittest.TestCase):
    """kombu over a folder, without Celery."""

    def setUp(self) -> None:
        transport.register()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name) / "broker"

    def connect(self) -> Any:
        connection = Connection("embedded://", transport_options={"folder": str(self.folder)})
        self.addCleanup(connection.release)
        return connection

    def test_a_url_without_a_folder_is_one_sentence(self) -> None:
        with self.assertRaisesRegex(SettingsError, "embedded:// has no folder; name one"):
            Connection("embedded://").connect()

    def test_a_url_without_a_folder_can_still_be_written(self) -> None:
        # As a worker does whom a monitor asks for its settings.
        self.assertEqual("embedded://:**@localhost//", Connection("embedded://").as_uri())

    def test_a_message_comes_back_when_the_connection_of_its_reader_closes(self) -> None:
        writer, reader = self.connect(), self.connect()
        writer.SimpleQueue("runs").put({"run": 1})
        message = reader.SimpleQueue("runs").get(timeout=5)
        self.assertFalse(message.delivery_info["redelivered"])

        reader.release()

        again = writer.SimpleQueue("runs").get(timeout=5)
        self.assertEqual({"run": 1}, again.payload)
        self.assertTrue(again.delivery_info["redelivered"])
        again.ack()
        writer.release()
        self.assertEqual(0, len(self.connect().SimpleQueue("runs")))

    def test_reject_drops_and_requeue_puts_back(self) -> None:
        queue = self.connect().SimpleQueue("runs")
        for run in ("a", "b"):
            queue.put(run)

        queue.get(timeout=5).reject()
        queue.get(timeout=5).requeue()

        self.assertEqual("b", queue.get(timeout=5).payload)
        self.assertEqual(0, len(queue))

    def test_settling_after_the_connection_closed_does_nothing(self) -> None:
        reader, other = self.connect(), self.connect()
        queue = reader.SimpleQueue("runs")
        messages = []
        for run in ("a", "b", "c"):
            queue.put(run)
            messages.append(queue.get(timeout=5))
        reader.release()

        messages[0].ack()
        messages[1].reject()
        messages[2].requeue()

        self.assertEqual(3, len(other.SimpleQueue("runs")))

    def test_no_more_is_delivered_than_prefetched(self) -> None:
        connection = self.connect()
        queue = connection.SimpleQueue("runs")
        for run in range(3):
            queue.put(run)
        got: list[Any] = []
        channel = connection.channel()
        channel.basic_qos(prefetch_count=2)
        with channel.Consumer(Queue("runs"), on_message=got.append):
            for _ in range(2):
                connection.drain_events(timeout=5)
            with self.assertRaises(TimeoutError):
                connection.drain_events(timeout=0.2)

            got[0].ack()
            connection.drain_events(timeout=5)

        self.assertEqual([0, 1, 2], [message.payload for message in got])

    def test_a_message_that_is_no_kombu_message_is_put_aside(self) -> None:
        connection = self.connect()
        queue = connection.SimpleQueue("runs")
        nested = b"[" * 100_000
        for number, content in enumerate((b"\xff\xfe", b'{"torn": ', b"{}", b"[]", b"null", nested)):
            path = self.folder / "queues" / "runs" / f"0-{number:020d}-{'a' * 12}.0"
            path.write_bytes(content)
        queue.put("good")

        with self.assertLogs("ciapp.broker", "WARNING") as logged:
            self.assertEqual("good", queue.get(timeout=5).payload)

        self.assertEqual(6, len(logged.records))
        self.assertEqual(6, len(list((self.folder / "aside").iterdir())))

    def test_a_publisher_leaves_no_owner_behind(self) -> None:
        self.connect().SimpleQueue("runs").put("a")

        self.assertEqual([], list((self.folder / "owners").iterdir()))

    def test_an_unwritable_folder_is_one_sentence(self) -> None:
        Path(self.folder).touch()

        with self.assertRaisesRegex(BrokerError, f"broker folder {self.folder} cannot be used"):
            self.connect().connect()


class TestWorker(unittest.TestCase):
    """Celery's prefork worker on the embedded broker."""

    def setUp(self) -> None:
        self.place = Workplace(self)

    def unsettled(self) -> list[Path]:
        broker = self.place.folder / "broker"
        return [*broker.glob("queues/*/*"), *broker.glob("owners/*/*!*"), *broker.glob("tmp/*")]

    def test_a_task_runs_once_and_its_message_is_gone(self) -> None:
        self.place.start_worker("a")

        self.place.send("tell", "x")

        self.place.wait_for("told", "x")
        wait_until(lambda: not self.unsettled(), "an acknowledged message")

    def test_a_worker_is_told_of_a_message_at_once(self) -> None:
        self.place.start_worker("a")

        self.place.python(SENDER)

        sent = {entry["name"]: entry["at"] for entry in self.place.journal("sent")}
        waits_s = [entry["at"] - sent[entry["name"]] for entry in self.place.journal("told")]
        self.assertEqual(12, len(waits_s))
        self.assertLess(median(waits_s), 0.25, "a worker that is not woken looks once a second")

    def test_a_killed_workers_task_runs_again_elsewhere_at_once(self) -> None:
        doomed = self.place.start_worker("doomed")
        self.place.send("hold", "x")
        self.place.wait_for("begin", "x")
        self.place.start_worker("other")

        killed_at = time.time()
        doomed.kill_main()

        first, second = self.place.wait_for("begin", "x", times=2)
        self.assertNotEqual(first["main"], second["main"])
        self.assertTrue(second["redelivered"])
        self.assertLess(second["at"] - killed_at, 5, "a sweep comes once a second")
        self.place.raise_flag("x")
        self.place.wait_for("end", "x")
        wait_until(lambda: not self.unsettled(), "an acknowledged message")

    def test_a_killed_workers_task_runs_again_when_it_is_started_again(self) -> None:
        self.place.send("hold", "x")
        doomed = self.place.start_worker("a")
        self.place.wait_for("begin", "x")
        doomed.kill()

        self.place.start_worker("again")

        self.place.wait_for("begin", "x", times=2)

    def test_what_a_stopped_worker_could_not_finish_is_requeued(self) -> None:
        worker = self.place.start_worker("a")
        self.place.send("hold", "x")
        self.place.wait_for("begin", "x")

        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in worker.said(), "the shutdown")
        worker.process.send_signal(signal.SIGQUIT)
        worker.process.wait(30)

        [message] = (self.place.folder / "broker" / "queues" / "ciapp-test").iterdir()
        self.assertTrue(message.name.endswith(".1"), f"{message.name} does not say that it was taken before")
        self.assertEqual([], list((self.place.folder / "broker" / "owners").iterdir()))

    def test_many_tasks_over_two_workers_run_once_each(self) -> None:
        for name in ("a", "b"):
            self.place.start_worker(name)

        self.place.python("for number in range(300): app.send_task('tell', args=[str(number)])")

        def all_told() -> bool:
            return len(self.place.journal("told")) >= 300

        wait_until(all_told, "300 tasks", 90)
        wait_until(lambda: not self.unsettled(), "acknowledged messages")
        told = [entry["name"] for entry in self.place.journal("told")]
        self.assertEqual([str(number) for number in range(300)], sorted(told, key=int))

    def test_remote_control_reaches_the_worker(self) -> None:
        self.place.start_worker("a")
        self.place.send("hold", "x")
        self.place.wait_for("begin", "x")

        inspect = "app.control.inspect(timeout=10, limit=1)"
        self.assertEqual("{'a@test': {'ok': 'pong'}}\n", self.place.python(f"print({inspect}.ping())"))
        self.assertIn("'args': ['x']", self.place.python(f"print({inspect}.active())"))
        self.place.raise_flag("x")

    def test_queues_of_dead_event_consumers_and_callers_are_cleared_away(self) -> None:
        self.place.start_worker("a")
        consumer = self.place.start_program(EVENT_CONSUMER)
        wait_until((self.place.folder / "consuming").exists, "an event consumer")
        self.place.python("app.control.inspect(timeout=10, limit=1).ping()\nos._exit(0)")
        queues = self.place.folder / "broker" / "queues"
        self.assertEqual(1, len(list(queues.glob("celeryev.*"))))

        consumer.kill()

        def only_the_workers() -> bool:
            return {path.name for path in queues.iterdir()} == {"ciapp-test", "a@test.celery.pidbox"}

        wait_until(only_the_workers, "dead queues to be deleted", 10)
        wait_until(lambda: len(list(queues.parent.glob("owners/*"))) == 1, "dead owners to be buried", 10)

    def test_a_worker_outlives_the_loss_of_its_folder(self) -> None:
        worker = self.place.start_worker("a")
        broker = self.place.folder / "broker"
        self.place.send("hold", "running")
        self.place.wait_for("begin", "running")

        os.rename(broker, self.place.folder / "gone")  # noqa: PTH104 - a move, as an administrator's
        wait_until(lambda: "was removed under us" in worker.said(), "the worker to see it")
        self.place.raise_flag("running")
        self.place.wait_for("end", "running")
        self.place.send("tell", "x")

        self.place.wait_for("told", "x")
        self.assertTrue(worker.is_alive())


if __name__ == "__main__":
    unittest.main()
