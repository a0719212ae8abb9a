"""Brokers that refuse us, at the start and later, and brokers that come later than the services."""

from __future__ import annotations

import subprocess
import sys
import time
import unittest

from ciapp.results.report import Status
from ciapp.results.workers import list_workers
from tests.support.installation import (
    PASSING,
    Installation,
    RabbitmqPostgresql,
    eventually,
    rabbitmq_host,
)
from tests.support.servers import PrivateRedis, standard_rabbitmq_url

WATCH_S = 8.0


class TestRefusedAtTheStart(unittest.TestCase):
    def assert_ends_with_a_sentence(self, url: str, said: str) -> None:
        ci = Installation(self, broker=url)
        sentence = rf"^ciapp: \S+ {said}.*; correct broker_url in the settings.*\n$"
        for words in (("worker", "--concurrency=1"), ("dispatcher",), ("up", "--no-monitor")):
            with self.subTest(words, url=url):
                self.assertRegex(ci.ciapp(*words, code=3), sentence)
        celery = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "ciapp", "worker"],
            env=ci.environment,
            cwd=ci.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        self.assertEqual(3, celery.returncode)
        self.assertRegex(celery.stderr, sentence)

    def test_a_wrong_password(self) -> None:
        url = standard_rabbitmq_url()
        self.assert_ends_with_a_sentence(f"amqp://guest:wrong@{url.partition('@')[2]}", "refuses us: ACCESS")

    def test_a_virtual_host_that_is_missing(self) -> None:
        url = standard_rabbitmq_url()
        self.assert_ends_with_a_sentence(f"{url.rstrip('/')}/nope", "refuses us: NOT_ALLOWED")

    def test_a_host_that_nobody_knows(self) -> None:
        self.assert_ends_with_a_sentence("redis://nowhere.invalid/0", "has a host that nobody knows: ")


class TestAway(unittest.TestCase):
    def test_services_that_start_before_their_broker_say_so_once_and_wait(self) -> None:
        broker = PrivateRedis(self)
        ci = Installation(self, broker=broker.url)
        clone = ci.make_repository()
        broker.stop()
        ci.start_all()
        logs = [ci.folder / f"{name}.log" for name in ("worker", "dispatcher")]
        for log in logs:
            eventually(lambda log=log: "broker away" in log.read_text(), f"it is said: {ci.logs()}")
        commit = ci.push_commit(clone, {"tests/test_a.py": PASSING})
        time.sleep(WATCH_S)  # several tries
        for log in logs:
            self.assertEqual(1, log.read_text().count("away"), log.read_text())
            self.assertRegex(
                log.read_text(), r"broker away error=.*(; start it, or correct|see `ciapp doctor`)"
            )
            self.assertNotIn("Traceback", log.read_text())
        broker.start()
        self.assertEqual(Status.PASSED, ci.report(commit).status)
        for log in logs:
            eventually(lambda log=log: "broker back" in log.read_text(), f"it is said: {ci.logs()}")


class TestRefusedLater(RabbitmqPostgresql, unittest.TestCase):
    def test_a_worker_whose_virtual_host_is_deleted_waits_calmly_until_it_is_there_again(self) -> None:
        ci = self.install()
        ci.ciapp("status")  # makes the tables
        host = ci.config.read_text().split('broker_url = "')[1].split('"')[0].rpartition("/")[2]
        worker = ci.start("worker", "--concurrency=1")
        eventually(lambda: list_workers(ci.database), "the worker is there")
        log = ci.folder / "worker.log"
        subprocess.run(["rabbitmqctl", "delete_vhost", host], check=True, capture_output=True)
        eventually(lambda: "NOT_ALLOWED" in log.read_text(), f"it is said: {ci.logs()}")
        time.sleep(WATCH_S)
        self.assertEqual(1, log.read_text().count("NOT_ALLOWED"), log.read_text())
        self.assertIsNone(worker.poll())
        rabbitmq_host(self, host)
        eventually(lambda: "broker back" in log.read_text(), f"it is said: {ci.logs()}")
        self.assertIsNone(worker.poll())


if __name__ == "__main__":
    unittest.main()
