"""tests/drill/judgement.py and brokers.py: what is left over is found and named, and what is doubled too."""

from __future__ import annotations

import unittest
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from kombu import Queue

from ciapp.celery import run_queue
from ciapp.errors import BrokerError
from ciapp.results.attempts import Attempt
from ciapp.results.matrix import DEFAULT, environment_of
from ciapp.results.queue import next_runs
from ciapp.results.report import State, Status
from ciapp.results.runs import Run
from ciapp.settings import Settings
from ciapp.testing.interpreters import find_interpreters
from tests.drill.brokers import RabbitmqBroker, RedisBroker, ServerBroker
from tests.drill.judgement import _judge_attempts, _leftovers
from tests.drill.terminals import Asked
from tests.support.git_repositories import new_folder
from tests.support.installation import eventually
from tests.support.ledgers import add_repository, commit, fresh_sqlite, push
from tests.support.network import Network
from tests.support.servers import PrivateRabbitMQ, PrivateRedis

STAY = ("dispatcher.lock", "mirrors/team.lock", "broker/sweep.lock", "workers/worker-1@h.lock")
LEFT = (
    "mirrors/team.new/HEAD",
    "mirrors/team.old/HEAD",
    "mirrors/team.git/objects/pack/tmp_pack_x",
    "mirrors/team.git/objects/pack/pack-1.keep",
    "mirrors/team.git/packed-refs.lock",
    "broker/something.part",
    "workers/something.new",
)


class TestFolders(unittest.TestCase):
    def test_what_a_killed_process_left_is_named_and_locks_that_stay_are_not(self):
        folder = new_folder(self)
        for name in (*STAY, *LEFT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        found = {str(path.relative_to(folder)) for path in _leftovers(folder)}
        self.assertEqual({name.removesuffix("/HEAD") for name in LEFT}, found)


class ServerRules:
    """Mixed into a test case per broker."""

    broker: ServerBroker

    def use(self, broker: ServerBroker) -> None:
        self.broker = broker
        broker.settings = Settings(broker_url=broker.url)

    def test_what_is_left_at_the_end_is_named(self):
        with self.broker.connect() as connection:
            channel = connection.default_channel
            run_queue(self.broker.settings)(channel).declare()
            self.assertEqual([], self.broker.left_at_the_end())
            other = Queue("celeryev.x", durable=False, channel=channel)
            other.declare()
            for queue in (run_queue(self.broker.settings), other):
                connection.Producer().publish("x", routing_key=queue.name, exchange="", declare=[])
            # RabbitMQ counts what a quorum queue holds every 5 s.
            found = eventually(
                lambda: found if len(found := self.broker.left_at_the_end()) > 1 else None, "both"
            )
        self.assertEqual(2, len(found), found)
        self.assertRegex(" ".join(sorted(found)), r"\b(on|has) ciapp\b")
        self.assertIn("celeryev.x", " ".join(found))


class TestRedis(ServerRules, unittest.TestCase):
    def setUp(self):
        self.use(RedisBroker(PrivateRedis(self)))

    def test_one_that_answers_no_more_is_told_of_as_any_other_that_is_away(self):
        with self.assertRaises(BrokerError), self.broker.reach() as connection:
            channel = connection.default_channel
            with self.broker.server.frozen():
                run_queue(self.broker.settings)(channel).declare()


class TestRedisOnAHostOfItsOwn(unittest.TestCase):
    def test_it_is_asked_there(self):
        self.assertEqual([], RedisBroker(PrivateRedis(self, Network(self).add_host("broker"))).left())


@pytest.mark.slow  # a node is started, for what the drill needs alone
class TestRabbitmq(ServerRules, unittest.TestCase):
    def setUp(self):
        self.use(RabbitmqBroker(PrivateRabbitMQ(self)))

    def test_a_node_that_was_killed_has_each_queue_that_a_worker_asks_for(self):
        settings = Settings(broker_url=self.broker.url, state_dir=str(new_folder(self)))
        self.broker.prepare(settings)
        self.broker.server.kill()
        self.broker.server.start()
        versions = find_interpreters(settings).interpreters
        with self.broker.connect() as connection:
            for environment in (DEFAULT, *map(environment_of, versions)):
                queue = run_queue(settings, environment)(connection.default_channel)
                self.assertEqual(0, queue.queue_declare(passive=True).message_count)


class TestAttempts(unittest.TestCase):
    def judge(self, *endings: str, asked: Asked | None = None) -> Sequence[str]:
        """What is said of a finished run whose attempts ended so."""
        now = datetime.now(UTC)
        attempts = [
            Attempt(number=number, worker="w", started_at=now, ended_at=now, ending=ending)
            for number, ending in enumerate(endings, 1)
        ]
        return list(_judge_attempts("it", self.run_at(len(attempts)), attempts, asked or Asked()))

    def run_at(self, attempt: int) -> Run:
        database = fresh_sqlite(self)
        database.migrate()
        push(database, add_repository(database), commit(1))
        [run] = next_runs(database, 1)
        return msgspec.structs.replace(run, attempt=attempt, state=State.FINISHED, status=Status.PASSED)

    def test_a_run_is_tested_once_and_once_more_for_each_time_that_somebody_asks(self):
        self.assertEqual([], self.judge("lost", "reported"))
        self.assertEqual(
            ["it was tested 2 times, and asked for again 0 times"], self.judge(*["reported"] * 2)
        )
        self.assertEqual([], self.judge("reported", "reported", asked=Asked(queued=1)))
        self.assertEqual([], self.judge("reported", "reported", asked=Asked(unknown=1)))

    def test_a_run_is_queued_again_only_once_it_has_finished(self):
        [said] = self.judge("reported too late", "reported", asked=Asked(queued=1))
        self.assertRegex(said, "queued again 1 times, and finished 1 times, not 2: .* while it was waiting")
        # Cancelled while it waited, it has no attempt that says so.
        self.assertEqual([], self.judge("reported", asked=Asked(cancelled=1, queued=1)))
        # Whoever did not hear the answer may have cancelled it.
        self.assertEqual([], self.judge("cancelled", "reported", asked=Asked(queued=1, unknown=1)))

    def test_an_attempt_is_cancelled_by_request_alone(self):
        said = self.judge("cancelled", "reported")
        self.assertEqual(["it was cancelled 1 times, 0 of them by request"], said)
        self.assertEqual([], self.judge("cancelled", "reported", asked=Asked(cancelled=1, queued=1)))


if __name__ == "__main__":
    unittest.main()
