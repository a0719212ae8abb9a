"""A commit that names Pythons: a run under each, by real workers that have some of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unittest
import urllib.request
from pathlib import Path

import pytest

from ciapp.results.report import State, Status
from ciapp.results.runs import Run
from ciapp.results.store import report_on
from ciapp.results.workers import list_workers
from ciapp.testing.interpreters import minor_version
from tests.support.installation import PASSING, Embedded, Installation, RabbitmqPostgresql, eventually
from tests.support.samples import find_pythons
from tests.support.servers import free_port
from tests.support.services import need

FAILS_UNDER = """
import sys
import unittest


class TestA(unittest.TestCase):
    def test_a(self):
        self.assertNotEqual("VERSION", f"{sys.version_info[0]}.{sys.version_info[1]}")
"""


class Matrix:
    """Mixed into a test case per combination of broker and database."""

    def install(self, *settings: str) -> Installation:
        raise NotImplementedError

    def setUp(self) -> None:
        found = find_pythons()
        if len(found) < 2:
            need("a second Python", "this machine has one alone")
        self.old, self.new = found[-2], found[-1]
        self.versions = [minor_version(self.old.version), minor_version(self.new.version)]

    def project(self, *versions: str) -> dict[str, str]:
        """A project that fails under the newer Python."""
        tests = FAILS_UNDER.replace("VERSION", self.versions[1])
        return {".ciapp.toml": f"python = {json.dumps(versions)}\n", "tests/test_a.py": tests}

    def finished(self, ci: Installation, commit: str, *environments: str) -> list[Run]:
        """The runs of a commit in these environments, once they have finished."""

        def look() -> list[Run]:
            runs = {run.environment: run for run in ci.runs(commit) if run.state is State.FINISHED}
            return (
                [runs[environment] for environment in environments]
                if runs.keys() >= set(environments)
                else []
            )

        try:
            return eventually(look, f"the runs of {commit} finish")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{ci.logs()}") from None

    def start_worker(self, ci: Installation, name: str, *pythons: str) -> None:
        """A worker that offers these Pythons alone."""
        config = ci.folder / f"{name}.toml"
        config.write_text(f"pythons = {json.dumps(pythons)}\n{ci.config.read_text()}")
        ci.start("--config", str(config), "worker", f"--hostname={name}@%h", "--concurrency=1", log=name)

    def test_a_commit_has_a_run_under_each_of_its_pythons_and_is_what_they_come_to(self):
        ci = self.install(f'pythons = ["{self.old.path}", "{self.new.path}"]')
        clone = ci.make_repository()
        ci.start_all(slots=2)
        commit = ci.push_commit(clone, self.project(*self.versions))

        said = ci.ciapp("wait", "team", code=1)
        self.assertIn(f"[{self.versions[0]} passed; {self.versions[1]} failed]", said)
        environments = [f"python{version}" for version in self.versions]
        runs = self.finished(ci, commit, *environments)
        self.assertEqual([Status.PASSED, Status.FAILED], [run.status for run in runs])
        reports = [report_on(ci.database, run) for run in runs]
        self.assertEqual([self.old.version, self.new.version], [report.python for report in reports])
        self.assertIn(f"Python {self.new.version}", ci.ciapp("report", "team", code=1))
        ci.ciapp("report", "team", "--python", self.versions[0], code=0)
        [worker] = list_workers(ci.database)
        self.assertEqual(("default", *environments), worker.environments)
        found = self.results(ci, [run.task_id for run in runs])
        self.assertEqual([["SUCCESS", environment] for environment in environments], found)

    def test_a_python_that_is_installed_while_a_worker_runs_is_noticed(self):
        ci = self.install()
        folder = ci.folder / "bin"
        folder.mkdir()
        version = self.versions[0]
        others = f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"
        ci.environment |= {"PATH": others, "PYENV_ROOT": "/nowhere", "UV_PYTHON_INSTALL_DIR": "/nowhere"}
        if shutil.which(f"python{version}", path=others):
            need("another Python", f"{version} is on the PATH of every program")
        clone = ci.make_repository()
        ci.start_all()
        commit = ci.push_commit(clone, self.project(version))
        waits = f"waits for a worker with Python {version}"
        eventually(lambda: waits in ci.ciapp("log", "team"), f"the run {waits}")

        link = folder / f"python{version}"
        link.symlink_to(self.old.path)

        [run] = self.finished(ci, commit, f"python{version}")
        self.assertEqual((Status.PASSED, 1), (run.status, run.attempt))

        link.unlink()
        eventually(
            lambda: f"python{version}" not in list_workers(ci.database)[0].environments, "the worker drops it"
        )
        ci.push_commit(clone, self.project(version) | {"new.py": ""})
        eventually(lambda: waits in ci.ciapp("log", "team"), f"the next run {waits}")

    def results(self, ci: Installation, task_ids: list[str]) -> list[object]:
        """State and environment of each task, as any program gets them."""
        script = (
            "import json, sys; from ciapp.celery import app\n"
            "found = [app.AsyncResult(one) for one in sys.argv[1:]]\n"
            "print(json.dumps([[one.state, one.get(timeout=9)['environment']] for one in found]))"
        )
        command = [sys.executable, "-c", script, *task_ids]
        done = subprocess.run(command, env=ci.environment, capture_output=True, check=True, timeout=60)
        return list(json.loads(done.stdout))

    def test_a_version_that_no_worker_has_waits_until_one_comes_and_keeps_nobody_waiting(self):
        ci = self.install()
        clone = ci.make_repository()
        ci.start("dispatcher")
        self.start_worker(ci, "first", str(self.old.path))
        old, new = (f"python{version}" for version in self.versions)
        waiting = [ci.commit(clone, self.project(*self.versions) | {"n": str(n)}) for n in range(6)]
        ci.push(clone)
        for commit in waiting:
            [passed] = self.finished(ci, commit, old)
            self.assertEqual(Status.PASSED, passed.status)
        other = ci.push_commit(clone, {".ciapp.toml": "", "tests/test_a.py": PASSING})
        self.assertEqual(Status.PASSED, ci.report(other).status)

        waits = f"waits for a worker with Python {self.versions[1]}"
        self.assertIn(f"{self.versions[0]} passed; {self.versions[1]} {waits}", ci.ciapp("log", "team"))
        self.assertIn(f"6 of them for Python {self.versions[1]}, which no worker has", ci.ciapp("status"))
        self.assertIn(f"6 runs wait for Python {self.versions[1]}, which no worker has", ci.ciapp("doctor"))
        self.assertIn(waits, ci.ciapp("wait", "team", waiting[-1], "--timeout=0.1", code=4))
        self.assertEqual({"queued"}, {run.state.value for run in self.runs_in(ci, waiting, new)})

        self.start_worker(ci, "second", str(self.new.path))
        for commit in waiting:
            [failed] = self.finished(ci, commit, new)
            self.assertEqual((Status.FAILED, 1), (failed.status, failed.attempt))
            self.assertTrue(failed.worker.startswith("second@"))

    def runs_in(self, ci: Installation, commits: list[str], environment: str) -> list[Run]:
        return [run for commit in commits for run in ci.runs(commit) if run.environment == environment]


class TestEmbedded(Embedded, Matrix, unittest.TestCase):
    def test_flower_says_for_what_a_run_waits_that_no_worker_takes(self):
        ci = self.install("pythons = []")
        clone = ci.make_repository()
        port = free_port()
        ci.start_all()
        ci.start("monitor", f"--port={port}")
        base = f"http://127.0.0.1:{port}"
        eventually(lambda: self.page(f"{base}/tasks"), "Flower answers")
        first = ci.push_commit(clone, {"tests/test_a.py": PASSING})
        self.assertEqual(Status.PASSED, ci.report(first).status)
        commit = ci.push_commit(clone, self.project(self.versions[1]))
        [run] = eventually(lambda: [run for run in ci.runs(commit) if run.sent_token], "the message is sent")
        page = f"{base}/task/team:{commit[:12]}:{run.id}:1"
        shown = eventually(lambda: self.page(page), "Flower knows the task")
        self.assertIn(f"team {commit[:12]}, Python {self.versions[1]}", shown)
        self.assertIn(f"ciapp.python{self.versions[1]}", shown)

    def page(self, url: str) -> str:
        """What a page says; empty while there is none."""
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""


class TestRabbitmqPostgresql(RabbitmqPostgresql, Matrix, unittest.TestCase):
    @pytest.mark.slow  # what a worker offers is the same on every broker
    def test_a_python_that_is_installed_while_a_worker_runs_is_noticed(self):
        super().test_a_python_that_is_installed_while_a_worker_runs_is_noticed()

    @pytest.mark.slow  # the queues are told apart by what waits for a version that no worker has
    def test_a_commit_has_a_run_under_each_of_its_pythons_and_is_what_they_come_to(self):
        super().test_a_commit_has_a_run_under_each_of_its_pythons_and_is_what_they_come_to()


if __name__ == "__main__":
    unittest.main()
