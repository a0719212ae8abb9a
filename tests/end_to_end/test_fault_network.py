"""Git host, workers, broker and database on hosts of their own, and cuts between each two of them.

A cut is silent and lasts longer than a lease: nobody can tell whether the other is slow, gone, or at work.
Some come two at once.
"""

from __future__ import annotations

import subprocess
import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from sqlalchemy import text

from ciapp.results.attempts import REPORTED, Attempt
from ciapp.results.database import Database
from ciapp.results.report import State
from ciapp.results.workers import list_workers
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.installation import CODE, PASSING, TEST_ANEW, Installation, eventually
from tests.support.ledgers import add_repository
from tests.support.network import Host, Network
from tests.support.servers import PrivatePostgreSQL, PrivateRabbitMQ, PrivateRedis

LEASE_S = 2.0
CUT_S = 1.75 * LEASE_S
WORKERS = 3
TEST = PASSING.replace("import unittest", "import time\nimport unittest")
TESTS_S = 1.0  #: long enough to be in the middle of something when a cut comes, mostly
CUT_OFF_TESTS_S = 4.0  #: long enough to be in the middle of the tests, on a machine that does much else


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
        with ThreadPoolExecutor() as pool:  # each takes seconds to start
            server = pool.submit(PrivatePostgreSQL, self, self.database_host)
            broker = pool.submit(self.new_broker, self.broker_host)
        self.server, self.broker = server.result(), broker.result()
        self.ci = HostedInstallation(self, self.network, self.server, self.broker.url)
        self.git_host = self.ci.git_host
        self.clone = self.ci.make_repository()
        self.ci.serve_repositories()
        self.ci.start("dispatcher")
        self.workers = [self.network.add_host(f"worker{number}") for number in range(WORKERS)]
        for number, host in enumerate(self.workers):
            self.ci.start_worker(f"worker{number}", host)
        eventually(lambda: len(list_workers(self.ci.database)) == WORKERS, f"workers: {self.ci.logs()}")

    def push(self, number: int, tests_s: float = TESTS_S) -> list[str]:
        """Push so many commits at once, whose tests take so long."""
        files = {"tests/test_a.py": TEST.replace("pass\n", f"time.sleep({tests_s})\n")}
        commits = [self.ci.commit(self.clone, files, f"{n}") for n in range(number)]
        self.ci.push(self.clone)
        return commits

    def one_that_tests(self, commits: list[str]) -> Host | None:
        """The host of a worker that is testing one of these commits."""
        for commit in commits:
            for run in self.ci.runs(commit):
                if run.state is State.RUNNING:
                    return self.workers[int(run.worker.partition("@worker")[2].partition("#")[0])]
        return None

    def push_and_cut(
        self, *cuts: tuple[Host | None, Host], tests_s: float = TESTS_S, cut_s: float = CUT_S
    ) -> list[str]:
        """Push, cut hosts off from each other while a test runs, push again, and heal; None is who tests."""
        before = self.push(WORKERS, tests_s)
        tester = eventually(lambda: self.one_that_tests(before), "a commit is tested")
        with ExitStack() as stack:
            for one, other in cuts:
                stack.enter_context(self.network.cut(one or tester, other))
            after = self.push(1)
            time.sleep(cut_s)  # the fault lasts so long, whatever happens meanwhile
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
        commits = self.push_and_cut((None, self.broker_host), (self.database_host, self.git_host))
        commits += self.push_and_cut((None, self.git_host), (self.broker_host, self.git_host))
        # Alone: while it waits for a broker, the dispatcher looks too seldom to take anybody for silent.
        cut = (None, self.database_host)
        cut_off = self.push_and_cut(cut, tests_s=CUT_OFF_TESTS_S, cut_s=2 * CUT_S)
        attempts = self.assert_all_well([*commits, *cut_off])
        lost = [one for each in attempts[-len(cut_off) :] for one in each if one.ending != REPORTED]
        self.assertRegex(lost[0].ending, r"^worker celery@worker\d#0 was silent for 2 s$")


class TestRedis(Cuts, unittest.TestCase):
    """What differs with another broker: the cuts from it. Meanwhile a host is cut off that holds a row."""

    def new_broker(self, host: Host) -> PrivateRedis:
        return PrivateRedis(self, host)

    def test_a_cut_from_the_broker_loses_nothing_and_one_from_the_database_holds_nothing_up(self) -> None:
        other = self.network.add_host("other")
        hold(self, self.ci.database, self.server.url, other)
        with self.network.cut(other, self.database_host), ThreadPoolExecutor() as pool:
            waited = pool.submit(wait_for_row, self.ci.database)
            commits = self.push_and_cut((None, self.broker_host))
            commits += self.push_and_cut((self.broker_host, self.git_host))
            self.assertLess(waited.result(), LET_GO_WITHIN_S)
            self.assertGreater(waited.result(), CUT_S)  # it was held, and by nobody who could let go
        self.assert_all_well(commits)


#: Holds a repository's row in a transaction, says so, and waits to be cut off.
HOLDER = """\
import sys, time
from sqlalchemy import text
from ciapp.results.database import Database
with Database(sys.argv[1]).write() as connection:
    connection.execute(text("UPDATE repositories SET host = 'elsewhere' WHERE name = 'other'"))
    print("held", flush=True)
    time.sleep(600)
"""
LET_GO_WITHIN_S = 25.0  #: of a row whose holder was cut off; by PostgreSQL's own settings it is two hours


def hold(test: unittest.TestCase, database: Database, url: str, host: Host) -> None:
    """Let a process on a host hold the row of a repository that nobody pushes to."""
    add_repository(database, "other")
    url = url.replace("postgresql://", "postgresql+psycopg://")
    command = [*host.prefix, sys.executable, "-c", HOLDER, url]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CODE)
    assert holder.stdout is not None
    test.addCleanup(holder.stdout.close)
    test.addCleanup(holder.wait)
    test.addCleanup(holder.kill)
    test.assertEqual(b"held\n", holder.stdout.readline())


def wait_for_row(database: Database) -> float:
    """Change the row that is held; how many seconds that took."""
    started_s = time.monotonic()
    with database.write() as connection:
        connection.execute(text("UPDATE repositories SET host = 'here' WHERE name = 'other'"))
    return time.monotonic() - started_s


if __name__ == "__main__":
    unittest.main()
