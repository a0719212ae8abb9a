"""Whether a ledger that has grown is as quick as a young one, and how large it gets.

    python -m tests.benchmarks.growth [--runs 100000] [--tests 500] [--databases URL URL]

Fills two ledgers, a young one of 1,000 runs and a grown one, with finished runs of a repository with as many
commits: mostly passed, a few failures with a traceback, durations that differ from run to run. Then it
measures in both, by turns, what people and workers do all day: claim, save, `ciapp log`, `ciapp report`, a
test's history, and the dispatcher's look at the queue; each is the median of repetitions, and to stay within
2 × its time in the young one. In the end runs are purged while another writer goes on, whose longest wait is
printed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import bindparam as bind

from ciapp.git import Commit
from ciapp.results import schema
from ciapp.results.database import Database
from ciapp.results.history import commit_log, runs_of
from ciapp.results.outcomes import latest_runs, past_tests
from ciapp.results.pushes import KnownRepository, NewPush, find_repository, record_push
from ciapp.results.queue import count_queues, next_runs
from ciapp.results.registration import register_repository
from ciapp.results.report import (
    Findings,
    Outcome,
    Report,
    Status,
    TestResult,
    count_outcomes,
)
from ciapp.results.retention import Retention, purge
from ciapp.results.runs import beat_run, claim_run, find_runs
from ciapp.results.store import make_report, pack_report, report_on, save_report

YOUNG, AT_ONCE, REPEATED, HISTORY = 1_000, 250, 60, 50
HOST, BRANCH = "here", "refs/heads/main"
BASE = datetime(2026, 1, 1, tzinfo=UTC)
TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "tests/test_ledger.py", line 118, in test_refuses\n'
    "    self.assertEqual(expected, ledger.rows())\n"
    "AssertionError: Lists differ: ['queued'] != ['running']\n"
)
OPERATIONS = ("claim", "save", "log", "report", "history", "queue")


def test_ids(number: int) -> list[str]:
    """Ids as projects have them, 60 characters on average."""
    modules = ("parser", "ledger", "queue", "session", "rendering", "settings", "transport")
    facts = ("accepts_an_empty_input", "refuses_what_is_too_long", "keeps_the_order", "is_stable")
    return [
        f"tests.unit.test_{modules[index % 7]}.Test{modules[index % 7].title()}{index // 28 % 9}."
        f"test_{facts[index // 7 % 4]}_{index // 252}_{index}"
        for index in range(number)
    ]


class Generator:
    """Makes commits and reports, the same ones each time."""

    def __init__(self, tests: int) -> None:
        self._noise = random.Random(7)
        self.ids = test_ids(tests)
        self._usual_s = [self._noise.lognormvariate(-6, 1.5) for _ in self.ids]

    def tests(self) -> tuple[TestResult, ...]:
        """One run's results: in most runs nothing fails, in some two in a thousand."""
        share = self._noise.choice((0, 0, 0, 0.002))
        return tuple(self._result(*pair, share) for pair in zip(self.ids, self._usual_s, strict=True))

    def _result(self, test_id: str, usual_s: float, share: float) -> TestResult:
        duration_s = usual_s * self._noise.uniform(0.8, 1.3)
        if share and self._noise.random() < share:
            said = TRACEBACK.splitlines()[-1]
            return TestResult(
                id=test_id,
                outcome=Outcome.FAILED,
                duration_s=duration_s,
                message=said,
                traceback=TRACEBACK,
                stdout="row 17 differs\n" * 20,
            )
        return TestResult(id=test_id, outcome=Outcome.PASSED, duration_s=duration_s)


def make_repository(folder: Path, commits: int) -> list[str]:
    """A bare repository with so many commits in a line; their ids, oldest first."""
    subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True)
    with subprocess.Popen(
        ["git", "-C", str(folder), "fast-import", "--quiet"], stdin=subprocess.PIPE, text=True
    ) as fed:
        assert fed.stdin is not None
        for number in range(commits):
            said = f"Change number {number} to the ledger"
            who = f"Ann <ann@example.org> {1767225600 + number} +0000"
            fed.stdin.write(f"commit {BRANCH}\ncommitter {who}\ndata {len(said)}\n{said}\n")
    listed = subprocess.run(
        ["git", "-C", str(folder), "rev-list", "--reverse", BRANCH],
        check=True,
        capture_output=True,
        text=True,
    )
    subprocess.run(["git", "-C", str(folder), "symbolic-ref", "HEAD", BRANCH], check=True)
    return listed.stdout.split()


class Bench:
    """A ledger that grows, and what is measured in it."""

    def __init__(self, database: Database, git_dir: Path, commits: Sequence[str], tests: int) -> None:
        self.database = database
        self.generator = Generator(tests)
        self._commits = commits
        self._recorded = 0
        self._finished = 0
        self._noise = random.Random(3)
        self._taken: dict[str, list[float]] = {name: [] for name in OPERATIONS}
        database.migrate()
        register_repository(database, name="team", host=HOST, git_dir=str(git_dir), refs={})
        self.repository: KnownRepository = find_repository(database, "team")

    def push(self, count: int) -> list[str]:
        """Record a push of the next commits."""
        news = self._commits[self._recorded : self._recorded + count]
        commits = [
            Commit(
                id=commit,
                tree="4b825dc642cb6eb9a060e54bf8d69288fbee4904",
                parents=(self._commits[number - 1],) if number else (),
                author="Ann <ann@example.org>",
                subject=f"Change number {number} to the ledger",
                committed_at=BASE + timedelta(minutes=number),
            )
            for number, commit in enumerate(news, self._recorded)
        ]
        pushed = NewPush(
            record=f"push-{self._recorded}",
            received_at=BASE + timedelta(minutes=self._recorded),
            refs={BRANCH: news[-1]},
            tips={news[-1]: (BRANCH,)},
        )
        record_push(self.database, self.repository.id, pushed, commits)
        self._recorded += count
        return news

    def grow(self, runs: int) -> None:
        """Finish runs until there are so many; a push of one commit after the other, as months bring them."""
        while self._finished < runs:
            count = min(AT_ONCE, runs - self._finished)
            self._finish(self.push(count))
            self._finished += count

    def _finish(self, commits: Sequence[str]) -> None:
        table = schema.runs
        runs = {run.commit: run for run in find_runs(self.database, "team", commits)}
        changes, reports, attempts = [], [], []
        for number, commit in enumerate(commits, self._finished):
            run, tests = runs[commit], self.generator.tests()
            ended_at = BASE + timedelta(minutes=number)
            report = self.report(run.id, commit, tests, ended_at)
            document = pack_report(report)
            changes.append(
                {
                    "key": run.id,
                    "state": "finished",
                    "status": report.status.value,
                    "token": 1,
                    "tries": 1,
                    "worker": report.worker,
                    "started_at": ended_at,
                    "finished_at": ended_at,
                    "duration_s": 4.2,
                    "counts": report.counts,
                    "tests_known": len(tests),
                    "tests_done": len(tests),
                }
            )
            attempts.append(
                {
                    "run_id": run.id,
                    "number": 1,
                    "worker": report.worker,
                    "started_at": ended_at,
                    "ended_at": ended_at,
                    "ending": "reported",
                }
            )
            reports.append(
                {
                    "run_id": run.id,
                    "attempt": 1,
                    "accepted": True,
                    "stored_at": ended_at,
                    "size": len(document),
                    "document": document,
                }
            )
        with self.database.write() as connection:
            names = [name for name in changes[0] if name != "key"]
            statement = table.update().where(table.c.id == bind("key"))
            connection.execute(statement.values({name: bind(name) for name in names}), changes)
            connection.execute(schema.attempts.insert(), attempts)
            connection.execute(schema.reports.insert(), reports)

    def report(self, run_id: int, commit: str, tests: tuple[TestResult, ...], ended_at: datetime) -> Report:
        """The report of a run's first attempt."""
        good = all(test.outcome.is_good for test in tests)
        return Report(
            repo="team",
            commit=commit,
            tree="4b825dc642cb6eb9a060e54bf8d69288fbee4904",
            refs=(BRANCH,),
            author="Ann <ann@example.org>",
            subject=f"Change number {run_id} to the ledger",
            worker="celery@worker-1#0",
            status=Status.PASSED if good else Status.FAILED,
            tests=tests,
            counts=count_outcomes(tests),
            started_at=ended_at,
            finished_at=ended_at,
            duration_s=4.2,
            python="3.11.7",
            sandbox="bubblewrap",
            children=1,
        )

    def test_and_look(self, commit: str) -> None:
        """Time each operation once, over a commit that was pushed."""
        database, repository = self.database, self.repository
        [run] = find_runs(database, "team", [commit])
        findings = Findings(status=Status.PASSED, tests=self.generator.tests())
        self._timed("queue", lambda: (count_queues(database), next_runs(database, 4)))
        claimed = self._timed("claim", lambda: claim_run(database, run.id, attempt=1, worker="w#0"))
        report = make_report(claimed, findings, finished_at=datetime.now(UTC))
        self._timed("save", lambda: save_report(database, run.id, report))
        self._timed("log", lambda: commit_log(database, repository, "HEAD", HOST, 20))
        old = self._commits[self._noise.randrange(self._finished)]
        self._timed("report", lambda: report_on(database, runs_of(database, repository, old)[0]))
        wanted = self._noise.choice(self.generator.ids)
        self._timed(
            "history", lambda: past_tests(database, latest_runs(database, repository.id, HISTORY), wanted)
        )
        self._finished += 1

    def _timed(self, name: str, call: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = call()
        self._taken[name].append(time.perf_counter() - started)
        return result

    def medians(self) -> dict[str, float]:
        """The median time of each operation, in seconds."""
        return {name: statistics.median(times) for name, times in self._taken.items()}

    def longest_wait(self, runs: int) -> tuple[float, float]:
        """The longest and the median wait of a writer while so many runs are purged."""
        [commit] = self.push(1)
        [run] = find_runs(self.database, "team", [commit])
        claim_run(self.database, run.id, attempt=1, worker="w#0")
        waits: list[float] = []
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(0.01):
                started = time.perf_counter()
                beat_run(self.database, run.id, attempt=1, known=0, done=0, failed=0)
                waits.append(time.perf_counter() - started)

        thread = threading.Thread(target=beat)
        thread.start()
        done = purge(self.database, Retention(keep_runs=max(0, self._finished - runs)))
        ended.set()
        thread.join()
        print(f"purged {done.runs} runs, {done.bytes / 2**20:.1f} MiB")
        return max(waits), statistics.median(waits)


@contextmanager
def grown(url: str, folder: Path, runs: int, tests: int) -> Iterator[Bench]:
    """An empty database, filled with so many runs."""
    folder.mkdir()
    database = Database(url or f"sqlite:///{folder / 'ledger.sqlite3'}")
    bench = Bench(
        database, folder / "team.git", make_repository(folder / "team.git", runs + REPEATED + 1), tests
    )
    started = time.monotonic()
    bench.grow(runs)
    print(f"filled {runs} runs of {tests} tests in {time.monotonic() - started:.0f} s")
    yield bench
    database.close()


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--purge", type=int, default=2_000, help="runs to purge in the end")
    parser.add_argument(
        "--databases", nargs=2, default=["", ""], help="URLs of two empty databases; by default SQLite files"
    )
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        grown(asked.databases[0], Path(name, "young"), YOUNG, asked.tests) as young,
        grown(asked.databases[1], Path(name, "old"), asked.runs, asked.tests) as old,
    ):
        for pair in zip(young.push(REPEATED), old.push(REPEATED), strict=True):
            for bench, commit in zip((young, old), pair, strict=True):
                bench.test_and_look(commit)
        print(f"{'ms':>8} {YOUNG:>10} {asked.runs:>10}  ratio (at most 2)")
        before, now = young.medians(), old.medians()
        for operation in OPERATIONS:
            times = before[operation], now[operation]
            print(f"{operation:>8} {times[0] * 1e3:10.2f} {times[1] * 1e3:10.2f}  {times[1] / times[0]:.2f}")
        file = Path(name, "old", "ledger.sqlite3")
        if file.exists():
            size = file.stat().st_size
            print(f"SQLite file: {size / 2**30:.2f} GiB, {size / asked.runs / 1024:.1f} KiB a run")
        longest, usual = old.longest_wait(asked.purge)
        print(f"another writer waited {longest * 1e3:.0f} ms at most, {usual * 1e3:.1f} ms usually")


if __name__ == "__main__":
    main()
