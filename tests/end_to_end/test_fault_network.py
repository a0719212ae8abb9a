"""Git host, workers, broker and database on hosts of their own, and cuts between each two of them.

A cut is silent and lasts longer than a lease: nobody can tell whether the other is slow, gone, or at work.
"""

from __future__ import annotations

import time
import unittest

from ciapp.results.database import Database
from ciapp.results.report import State
from ciapp.results.runs import REPORTED, Attempt
from ciapp.results.workers import list_workers
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.installation import PASSING, TEST_ANEW, Installation, eventually
from tests.support.network import Host, Network
from tests.support.servers import PrivatePostgreSQL, PrivateRabbitMQ, PrivateRedis

LEASE_S = 2.0
CUT_S = 1.75 * LEASE_S
WORKERS = 3
#: Runs for long enough to be in the middle of something when a cut comes.
TEST = PASSING.replace("import unittest", "import time\nimport unittest").replace(
    "pass\n", "time.sleep(0.5)\n"
)


class HostedInstallation(Installation):
    """One ciapp over several hosts, whose ledger this machine sees through a socket file."""

    def __init__(
        self, test: unittest.TestCase, network: Network, server: PrivatePostgreSQL, broker: str
    ) -> None:
        self.git_host = network.add_host("git")
        settings = ('host = "git"', f"lease_s = {LEASE_S}", "reconcile_s = 5", TEST_ANEW)
        super().__init__(test, *settings, broker=broker, database=server.url, host=self.git_host)
        self._ledger = Database(server.local_url)
        test.addCleanup(self._ledger.close)

    @property
    def database(self) -> Database:
        return self._ledger

    def serve_repositories(self) -> None:
        """git's own protocol, for the workers."""
        daemon = ["git", "daemon", f"--base-path={self.folder}", "--export-all", "--reuseaddr"]
        daemon += [f"--listen={self.git_host.address}"]
        self.start_program(*self.git_host.prefix, *daemon, log="daemon")

    def start_worker(self, name: str, host: Host) -> None:
        """A worker with a state folder of its own."""
        text = self.config.read_text().replace('"git"', f'"{name}"')
        text = text.replace(str(self.folder / "state"), str(self.folder / f"{name}-state"))
        clone_url = f"git://{self.git_host.address}/team.git"
        config = self.folder / f"{name}.toml"
        config.write_text(f'{text}\n[repository.team]\nclone_url = "{clone_url}"\n')
        words = ("--config", str(config), "worker", "--concurrency=1", f"--hostname=celery@{name}")
        self.start(*words, log=name, host=host)


class Cuts:
    """Mixed into a test case per broker."""

    def setUp(self) -> None:
        self.network = Network(self)
        self.broker_host, self.database_host = self.network.add_host("broker"), self.network.add_host("db")
        self.server = PrivatePostgreSQL(self, self.database_host)
        self.broker = self.new_broker(self.broker_host)
        self.ci = HostedInstallation(self, self.network, self.server, self.broker.url)
        self.git_host = self.ci.git_host
        self.clone = self.ci.make_repository()
        self.ci.serve_repositories()
        self.ci.start("dispatcher")
        self.workers = [self.network.add_host(f"worker{number}") for number in range(WORKERS)]
        for number, host in enumerate(self.workers):
            self.ci.start_worker(f"worker{number}", host)
        eventually(lambda: len(list_workers(self.ci.database)) == WORKERS, f"workers: {self.ci.logs()}")

    def push(self, number: int) -> list[str]:
        """Push so many commits at once."""
        commits = [self.ci.commit(self.clone, {"tests/test_a.py": TEST}, f"{n}") for n in range(number)]
        self.ci.push(self.clone)
        return commits

    def held_by(self, worker: int, commits: list[str]) -> bool:
        """Whether that worker is testing one of these commits."""
        runs = [run for commit in commits for run in self.ci.runs(commit)]
        return any(run.state is State.RUNNING and f"@worker{worker}#" in run.worker for run in runs)

    def push_and_cut(self, worker: int, one: Host, other: Host) -> list[str]:
        """Push, cut the two off from each other in the middle of that worker's test, push again, and heal."""
        before = self.push(WORKERS)
        eventually(lambda: self.held_by(worker, before), f"worker {worker} tests: {self.ci.logs()}")
        with self.network.cut(one, other):
            after = self.push(1)
            time.sleep(CUT_S)  # the fault lasts so long, whatever happens meanwhile
        return [*before, *after]

    def assert_all_well(self, commits: list[str]) -> list[list[Attempt]]:
        attempts = assert_one_right_report_each(self, self.ci, commits)
        states = [self.ci.folder / f"worker{number}-state" for number in range(WORKERS)]
        assert_nothing_is_left(self.ci, self.ci.folder / "state", *states)
        return attempts


class TestRabbitmq(Cuts, unittest.TestCase):
    """Three workers, and a cut between each two hosts that talk to each other."""

    def new_broker(self, host: Host) -> PrivateRabbitMQ:
        return PrivateRabbitMQ(self, host)

    def test_a_cut_between_each_two_hosts_loses_and_doubles_nothing(self) -> None:
        first, second, third = self.workers
        commits = self.push_and_cut(0, self.git_host, self.broker_host)
        commits += self.push_and_cut(1, self.git_host, self.database_host)
        commits += self.push_and_cut(2, first, self.git_host)
        commits += self.push_and_cut(1, second, self.broker_host)
        cut_off = self.push_and_cut(2, third, self.database_host)
        attempts = self.assert_all_well([*commits, *cut_off])
        lost = [one for each in attempts[-len(cut_off) :] for one in each if one.ending != REPORTED]
        self.assertRegex(lost[0].ending, "^worker celery@worker2#0 was silent for 2 s$")


class TestRedis(Cuts, unittest.TestCase):
    """What differs with another broker: the cuts from it."""

    def new_broker(self, host: Host) -> PrivateRedis:
        return PrivateRedis(self, host)

    def test_a_cut_from_the_broker_loses_and_doubles_nothing(self) -> None:
        commits = self.push_and_cut(0, self.git_host, self.broker_host)
        commits += self.push_and_cut(1, self.workers[1], self.broker_host)
        self.assert_all_well(commits)


if __name__ == "__main__":
    unittest.main()
