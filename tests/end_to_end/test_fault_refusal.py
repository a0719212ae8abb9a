"""Brokers that refuse us."""

from __future__ import annotations

import subprocess
import sys
import unittest

from tests.support.installation import (
    Installation,
)
from tests.support.servers import standard_rabbitmq_url


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


if __name__ == "__main__":
    unittest.main()
