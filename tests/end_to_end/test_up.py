"""`ciapp up` as a process tree: started, stopped, killed, started twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path

from ciapp.intake.presence import is_dispatcher_alive
from ciapp.results.attempts import list_attempts
from ciapp.results.report import State, Status
from ciapp.results.runs import Run
from ciapp.results.workers import list_workers
from tests.support.installation import PASSING, SLOW, Installation, eventually
from tests.support.servers import free_port, listens

ENDLESS = SLOW.replace("time.sleep(5)", "time.sleep(600)")
SECONDS = 20.0  #: within seconds, on a machine that does much else


class UpTest(unittest.TestCase):
    """An installation with one repository, and `ciapp up` for it."""

    def setUp(self) -> None:
        self.ci = Installation(self)
        self.clone = self.ci.make_repository()

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """`ciapp up` whose services are there."""
        up = self.ci.start("up", "--concurrency=1", *(options or ("--no-monitor",)))
        eventually(self.is_ready, f"the services are there: {self.ci.logs()}")
        return up

    def is_ready(self) -> bool:
        try:
            return bool(list_workers(self.ci.database)) and is_dispatcher_alive(self.ci.folder / "team.git")
        except Exception:
            return False

    def processes(self, *words: str) -> list[int]:
        """Processes of this installation whose command line has these words."""
        mark = f"CIAPP_CONFIG={self.ci.config}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                command = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark in environment and all(word.encode() in command for word in words):
                found.append(int(process.name))
        return found

    def running(self, test: str) -> Run:
        """A pushed commit whose test is being run."""
        commit = self.ci.push_commit(self.clone, {"tests/test_a.py": test})
        return eventually(
            lambda: next((run for run in self.ci.runs(commit) if run.tests_known), None), "the test runs"
        )

    def assert_gone(self) -> None:
        eventually(lambda: not self.processes(), f"nothing is left: {self.processes()}", SECONDS)


class TestStopping(UpTest):
    def test_ctrl_c_finishes_the_run_in_flight_and_leaves_nothing(self) -> None:
        port = free_port()
        up = self.start(f"--port={port}")
        eventually(lambda: listens(port), "the monitor listens")
        run = self.running(SLOW)
        up.send_signal(signal.SIGINT)
        self.assertEqual(0, up.wait(5 + SECONDS))

        self.assert_gone()
        [run] = self.ci.runs(run.commit)
        self.assertEqual((Status.PASSED, 1), (run.status, run.attempt))
        self.assertFalse(listens(port))

    def test_a_second_ctrl_c_gives_the_run_back_at_once(self) -> None:
        up = self.start()
        run = self.running(ENDLESS)
        up.send_signal(signal.SIGINT)
        eventually(lambda: "stopping" in self.ci.logs(), "it is stopping")
        time.sleep(1)  # the first signal has to reach the worker before the second
        up.send_signal(signal.SIGINT)
        self.assertEqual(0, up.wait(SECONDS))

        self.assert_gone()
        [run] = self.ci.runs(run.commit)
        self.assertEqual((State.QUEUED, 0), (run.state, run.tries))
        [attempt] = list_attempts(self.ci.database, run.id)
        self.assertRegex(attempt.ending, r"^worker celery@\S+ was stopped$")

    def test_a_worker_that_is_told_to_stop_gives_back_what_it_does_not_finish_in_time(self) -> None:
        self.ci.start("dispatcher")
        worker = self.ci.start("worker", "--concurrency=1")
        run = self.running(ENDLESS)
        worker.terminate()
        started = time.monotonic()
        self.assertEqual(0, worker.wait(30 + SECONDS))

        self.assertGreater(time.monotonic() - started, 25)
        [run] = self.ci.runs(run.commit)
        self.assertEqual((State.QUEUED, 0), (run.state, run.tries))

    def test_kill_9_takes_its_services_along(self) -> None:
        up = self.start()
        up.kill()
        up.wait()
        self.assert_gone()


class TestKeepingRunning(UpTest):
    def test_a_service_that_dies_is_started_again(self) -> None:
        self.start()
        killed = self.processes("worker") + self.processes("dispatcher")
        for process in killed:
            os.kill(process, signal.SIGKILL)
        commit = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})

        self.assertEqual(Status.PASSED, self.ci.report(commit).status)
        self.assertFalse(set(killed) & set(self.processes()))
        self.assertIn("service ended service=worker exit=-9", self.ci.logs())

    def test_its_log_has_one_line_for_each_change_of_a_run(self) -> None:
        up = self.start()
        commit = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING})
        self.ci.report(commit)
        up.send_signal(signal.SIGINT)
        up.wait(SECONDS)
        lines = [line for line in (self.ci.folder / "up.log").read_text().splitlines() if "run" in line]
        events = [line for line in lines if commit[:12] in line or "Task" in line]
        self.assertEqual(2, len(events), events)
        self.assertRegex(events[0], rf"INFO +run started .*repo=team commit={commit[:12]}")
        self.assertRegex(events[1], rf"INFO +run finished repo=team commit={commit[:12]} .*status=passed")

    def test_a_second_one_says_that_there_is_one(self) -> None:
        first = self.start()
        said = self.ci.ciapp("up", "--no-monitor", code=2)
        self.assertEqual(f"ciapp: `ciapp up` runs already in {self.ci.folder}/state; stop it first\n", said)
        self.assertIsNone(first.poll())
        self.assertTrue(self.is_ready())

    def test_beside_a_dispatcher_of_its_own_it_ends_with_a_sentence(self) -> None:
        self.ci.start("dispatcher")
        eventually(lambda: is_dispatcher_alive(self.ci.folder / "team.git"), "the dispatcher is there")
        said = self.ci.ciapp("up", "--no-monitor", "--concurrency=1", code=2)
        self.assertIn(f"ciapp: a dispatcher runs already in {self.ci.folder}/state; stop it first\n", said)
        self.assertTrue(said.endswith("the dispatcher cannot run, for the reason above; all is stopped\n"))
        eventually(lambda: not self.processes("worker"), "the worker is gone")

    def test_a_port_that_is_taken_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            said = self.ci.ciapp("up", f"--port={port}", code=2)
        self.assertEqual(
            f"ciapp: the monitor cannot listen on 127.0.0.1:{port}: Address already in use; "
            "give another --port, or --no-monitor\n",
            said,
        )


if __name__ == "__main__":
    unittest.main()
