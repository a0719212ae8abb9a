"""Workers that are restarted one by one, and a whole machine that is: each commit ends with one report."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import unittest
from contextlib import suppress
from pathlib import Path

import pytest

from ciapp.intake.presence import STARTED_FIELD
from ciapp.intake.spool import STALE_PART_S, spool_folder
from ciapp.results.attempts import REPORTED
from ciapp.results.report import State
from ciapp.results.runs import find_runs
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.held import HeldRuns
from tests.support.installation import (
    PASSING,
    SLOW,
    TEST_ANEW,
    Embedded,
    Installation,
    RabbitmqPostgresql,
    eventually,
)
from tests.support.processes import GONE_WITHIN_S, processes_of

BRIEF = SLOW.replace("time.sleep(5)", "time.sleep(0.3)")
PUSH_EVERY_S = 0.5
STOPPED_WITHIN_S = 30.0  #: what is in flight takes less than a second, on a machine that does much else


class Rolling:
    """SIGTERM to one worker after the other, while commits come in."""

    names = ("one", "two")

    def setUp(self) -> None:
        self.ci: Installation = self.install(TEST_ANEW)
        self.clone = self.ci.make_repository()
        self.ci.start("dispatcher")
        self.commits: list[str] = []
        self.enough = threading.Event()

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        return self.ci.start("worker", "--concurrency=1", f"--hostname={name}@%h", log=name)

    def push_on(self) -> None:
        """Push commit after commit until it is enough."""
        while not self.enough.wait(PUSH_EVERY_S):
            test = BRIEF + f"# {len(self.commits)}\n"
            self.commits.append(self.ci.push_commit(self.clone, {"tests/test_a.py": test}))

    def finished_by(self, name: str) -> int:
        """How many commits this worker has tested."""
        runs = find_runs(self.ci.database, "team", list(self.commits))
        return sum(run.state is State.FINISHED and run.worker.startswith(f"{name}@") for run in runs)

    def wait_for_work(self, name: str, number: int) -> None:
        eventually(lambda: self.finished_by(name) >= number, f"{name} works: {self.ci.logs()}")

    def test_it_loses_no_attempt(self) -> None:
        workers = {name: self.start_worker(name) for name in self.names}
        pushing = threading.Thread(target=self.push_on)
        pushing.start()
        self.addCleanup(pushing.join)
        self.addCleanup(self.enough.set)
        for name, worker in workers.items():
            self.wait_for_work(name, 1)
            worker.terminate()
            self.assertEqual(0, worker.wait(STOPPED_WITHIN_S))
            done = self.finished_by(name)
            workers[name] = self.start_worker(name)
            self.wait_for_work(name, done + 1)
        self.enough.set()
        pushing.join()

        attempts = assert_one_right_report_each(self, self.ci, self.commits)
        self.assertEqual(
            [[REPORTED]] * len(self.commits), [[one.ending for one in each] for each in attempts]
        )
        assert_nothing_is_left(self.ci)


@pytest.mark.slow
class TestRollingEmbedded(Rolling, Embedded, unittest.TestCase):
    pass


class TestRollingRabbitmqPostgresql(Rolling, RabbitmqPostgresql, unittest.TestCase):
    pass


class TestQuit(HeldRuns):
    """SIGQUIT: what is in flight is not finished, but given back."""

    lease_s = 30.0  #: so that its end is no explanation

    def test_it_gives_the_run_back_at_once_also_when_it_comes_right_after_sigterm(self) -> None:
        held = self.push_held()
        for attempt, numbers in enumerate([(signal.SIGQUIT,), (signal.SIGTERM, signal.SIGQUIT)], 1):
            worker = self.start_worker(f"worker{attempt}")
            name = self.running(held, attempt).worker.partition("#")[0]
            for number in numbers:
                worker.send_signal(number)
            worker.wait(STOPPED_WITHIN_S)
            self.assertEqual(f"worker {name} was stopped", self.endings(held)[-1])
            run = self.only_run(held)
            self.assertEqual((State.QUEUED, 0), (run.state, run.tries))
        self.start_worker("last")
        self.let_go(self.running(held, 3))
        assert_one_right_report_each(self, self.ci, [held])


#: Stands for a command of the hook: tells that it was reached, and goes no further.
HANGING = """#!/bin/sh
touch FOLDER/reached
exec sleep 600
"""
#: What git leaves when it ends with its machine, in the repository of a host and in the copies of workers.
GIT_LOCKS = ("packed-refs.lock", "HEAD.lock", "config.lock", "refs/heads/main.lock", "shallow.lock")


class TestMachine(HeldRuns):
    """All processes end at once, the hook of a push among them; the disk stays as it is."""

    def push_until_hook_hangs(self) -> str:
        """A push whose hook is in the middle of its record; returns the commit, which git has accepted."""
        commit = self.ci.commit(self.clone, {"tests/test_a.py": PASSING}, "hook")
        folder = self.ci.folder / "hanging"
        folder.mkdir()
        (folder / "dd").write_text(HANGING.replace("FOLDER", str(folder)))
        (folder / "dd").chmod(0o755)
        path = f"{folder}:{self.ci.environment['PATH']}"
        push = ("git", "-C", str(self.clone), "push", "origin", "HEAD:main")
        self.ci.start_program(*push, log="push", PATH=path)
        eventually((folder / "reached").exists, "the hook syncs its record")
        return commit

    def turn_off(self) -> None:
        """kill -9 of everything at once."""
        while processes := processes_of(self.ci.config):
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for process in processes:
                    with suppress(ProcessLookupError):
                        os.kill(process, number)
            for service in self.ci.processes:
                service.wait()

    def leave_marks(self, mark: str) -> None:
        """What the machine's end leaves behind: a dispatcher's mark, git's locks, half a record."""
        bare = self.ci.folder / "team.git"
        (bare / "ciapp" / "dispatcher").write_text(mark)
        for lock in GIT_LOCKS:
            (self.ci.folder / "state" / "mirrors" / "team.git" / lock).touch()
        for part in spool_folder(bare).glob(".*.part"):
            moment = part.stat().st_mtime - STALE_PART_S - 1
            os.utime(part, (moment, moment))

    def test_started_again_it_gives_every_accepted_commit_one_report(self) -> None:
        self.start_worker()
        done = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})
        self.ci.report(done)
        held = self.push_held()
        self.running(held)
        waiting = [
            self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, f"{each}") for each in (1, 2)
        ]
        hooked = self.push_until_hook_hangs()
        dispatcher = (self.ci.folder / "team.git" / "ciapp" / "dispatcher").read_text()
        self.turn_off()
        self.assertEqual(hooked, self.ci.git("rev-parse", "main", cwd=self.ci.folder / "team.git"))
        eventually(lambda: not self.held_processes(), "its processes are gone", GONE_WITHIN_S)

        _, started, boot = dispatcher.split()
        late = []
        for mark in (f"{os.getpid()} {started} {boot}", f"{os.getpid()} {own_start()} another-boot"):
            # Its number is another's by now: ours, who is no dispatcher.
            self.leave_marks(f"{mark}\n")
            late.append(self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, mark))
            eventually(lambda: self.ci.runs(late[-1]), "a push finds that no dispatcher lives")
            self.wait_for_dispatchers()
        self.ci.start("dispatcher")
        self.start_worker()
        eventually(lambda: len(self.endings(held)) == 2, f"it is tested again: {self.ci.logs()}")
        self.let_go(self.running(held, 2))
        attempts = assert_one_right_report_each(self, self.ci, [done, held, *waiting, hooked, *late])
        lost = [one for each in attempts for one in each if one.ending != REPORTED]
        self.assertEqual([1], [one.number for one in lost])
        self.assertRegex(lost[0].ending, "was silent")
        assert_nothing_is_left(self.ci)

    def wait_for_dispatchers(self) -> None:
        """Until those that hooks started have ended."""
        eventually(lambda: not processes_of(self.ci.config), "no dispatcher is left")


def own_start() -> str:
    """When this process started, as the kernel counts."""
    return Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[STARTED_FIELD]


if __name__ == "__main__":
    unittest.main()
