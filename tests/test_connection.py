"""What is said of a broker that refuses us, and of one that is away."""

from __future__ import annotations

import unittest
from pathlib import Path

from ciapp.connection import end_if_refused, reach_broker
from ciapp.errors import BrokerError, BrokerRefusedError
from ciapp.settings import Settings
from tests.support.git_repositories import new_folder
from tests.support.servers import PrivateRedis, free_port, standard_rabbitmq_url


class TestReachingBrokers(unittest.TestCase):
    def assert_refused(self, url: str, sentence: str) -> None:
        """Waiting for it would not help."""
        for reach in (reach_broker, end_if_refused):
            with self.assertRaises(BrokerRefusedError) as caught:
                reach(Settings(broker_url=url))
            self.assertIn(sentence, str(caught.exception))
            self.assertIn("; correct broker_url in the settings", str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))

    def assert_away(self, url: str) -> None:
        """It will be waited for."""
        with self.assertRaises(BrokerError) as caught:
            reach_broker(Settings(broker_url=url))
        self.assertNotIsInstance(caught.exception, BrokerRefusedError)
        self.assertRegex(
            str(caught.exception),
            r"^\S+ does not answer: .*; start it, or correct broker_url in the settings$",
        )
        end_if_refused(Settings(broker_url=url))

    def test_rabbitmq(self) -> None:
        url = standard_rabbitmq_url()
        self.assertNotIn("guest@", reach_broker(Settings(broker_url=url)))
        server = url.partition("@")[2].rstrip("/")
        self.assert_refused(
            f"amqp://guest:secret@{server}//", "refuses us: ACCESS_REFUSED - Login was refused"
        )
        self.assert_refused(f"{url.rstrip('/')}/nope", "refuses us: NOT_ALLOWED - vhost nope not found")

    def test_redis(self) -> None:
        server = PrivateRedis(self)
        self.assertEqual(
            f"redis://:**@127.0.0.1:{server.port}/0", reach_broker(Settings(broker_url=server.url))
        )
        self.assert_refused(f"redis://127.0.0.1:{server.port}/99", "refuses us: DB index is out of range")
        server.run("redis-cli", "-p", str(server.port), "CONFIG", "SET", "requirepass", "right")
        self.assert_refused(server.url, "refuses us: Authentication required")
        self.assert_refused(server.url.replace("//", "//:secret@"), "refuses us: ")

    def test_a_server_that_is_not_there(self) -> None:
        for scheme in ("amqp", "redis"):
            with self.subTest(scheme):
                self.assert_away(f"{scheme}://u:secret@127.0.0.1:{free_port()}/0")

    def test_a_host_that_nobody_knows(self) -> None:
        for scheme in ("amqp", "redis"):
            with self.subTest(scheme):
                self.assert_refused(
                    f"{scheme}://u:secret@nowhere.invalid/0", "has a host that nobody knows: "
                )

    def test_what_no_library_can_use(self) -> None:
        port = free_port()
        for url, said in {
            f"redis://127.0.0.1:{port}/abc": "a redis broker cannot be used so: Database is int",
            f"sentinel://127.0.0.1:{port}/0": "a sentinel broker cannot be used so: 'master_name'",
        }.items():
            with self.subTest(url):
                self.assert_refused(url, said)

    def test_the_embedded_one_is_a_folder(self) -> None:
        state = new_folder(self)
        reach_broker(Settings(state_dir=str(state)))
        self.assertTrue((state / "broker").is_dir())
        file = state / "file"
        Path(file).touch()
        with self.assertRaisesRegex(BrokerError, "cannot be used: Not a directory; check its disk"):
            reach_broker(Settings(state_dir=str(file)))


if __name__ == "__main__":
    unittest.main()
