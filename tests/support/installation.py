"""A whole ciapp for a test: its own state folder, settings, processes and repositories.

Everything is real: the hook runs in a real push, dispatcher and workers are processes started as a user
starts them, the broker and the database are what the settings say.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ciapp.results.database import Database
from ciapp.results.report import Report, State
from ciapp.results.runs import Run, find_runs
from ciapp.results.store import report_on
from tests.support.ledgers import fresh_postgresql_url
from tests.support.levels import usual_level
from tests.support.network import Host
from tests.support.servers import PrivateRedis, standard_rabbitmq_url
from tests.support.services import need

Found = TypeVar("Found")
PASSING = "import unittest\n\n\nclass TestA(unittest.TestCase):\n    def test_a(self):\n        pass\n"
FAILING = PASSING.replace("pass\n", "self.fail('broken')\n")
SLOW = PASSING.replace("import unittest", "import time\nimport unittest").replace("pass\n", "time.sleep(5)\n")
TEST_ANEW = "[repository.team.project]\nreuse = false"  #: as the last setting: each commit's tests really run
DEADLINE_S = 60.0
CODE = Path(__file__).parent.parent.parent


def eventually(look: Callable[[], Found], what: str, deadline_s: float = DEADLINE_S) -> Found:
    """What `look` returns once it is true; fails with `what` when it never is."""
    end = time.monotonic() + deadline_s
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.05)
    return found


class Installation:
    """One ciapp; everything it started is gone after the test."""

    def __init__(
        self,
        test: unittest.TestCase,
        *settings: str,
        broker: str = "",
        database: str = "",
        host: Host | None = None,
    ) -> None:
        """`host` is where its commands run, in a network of the test's own; else this machine."""
        self._prefix = host.prefix if host else ()
        self.folder = Path(tempfile.mkdtemp(prefix="ciapp-test-"))
        self.folder.chmod(0o711)
        self.is_kept = False  #: whether the folder stays when all else goes
        self.processes: list[subprocess.Popen[bytes]] = []
        self._databases: dict[str, Database] = {}
        test.addCleanup(self.remove)
        lines = [f'state_dir = "{self.folder / "state"}"', *settings]
        if not any(line.startswith("sandbox") for line in settings):
            lines.insert(0, f'sandbox = "{usual_level()}"')
        if broker:
            lines.insert(0, f'broker_url = "{broker}"')
        if database:
            lines.insert(0, f'database_url = "{database}"')
        self.config = self.folder / "ciapp.toml"
        self.config.write_text("\n".join(lines) + "\n")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CIAPP_", "GIT_"))
        } | {
            "CIAPP_CONFIG": str(self.config),
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **{f"GIT_{role}_NAME": "Ann" for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": "ann@example.org" for role in ("AUTHOR", "COMMITTER")},
            "PYTHONPATH": str(CODE),
        }

    @property
    def database(self) -> Database:
        """The ledger, as this test sees it."""
        url = f"sqlite:///{self.folder / 'state' / 'ledger.sqlite3'}"
        for line in self.config.read_text().splitlines():
            if line.startswith("database_url"):
                url = line.split('"')[1].replace("postgresql://", "postgresql+psycopg://")
        # Kept, as tests look again and again: to connect to PostgreSQL takes longer than to ask it.
        if url not in self._databases:
            self._databases[url] = Database(url)
        return self._databases[url]

    def ciapp(self, *words: str, code: int | None = 0) -> str:
        """What `ciapp WORDS` prints, both streams; its exit code is checked."""
        done = subprocess.run(
            [*self._prefix, sys.executable, "-m", "ciapp.cli", *words],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            timeout=120,
            check=False,
        )
        said = (done.stdout + done.stderr).decode()
        if code is not None and done.returncode != code:
            raise AssertionError(f"ciapp {' '.join(words)} ended with {done.returncode}, not {code}:\n{said}")
        return said

    def start(
        self, *words: str, log: str = "", host: Host | None = None, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start `ciapp WORDS` in a session of its own, with variables more; its output goes to a file."""
        command = (*(host.prefix if host else self._prefix), sys.executable, "-m", "ciapp.cli", *words)
        return self.start_program(*command, log=log or words[0], **variables)

    def start_program(self, *command: str, log: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start any program in a session of its own; its output goes to a file."""
        with (self.folder / f"{log}.log").open("ab") as out:
            process = subprocess.Popen(
                command,
                env=self.environment | variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_all(self, slots: int = 1) -> None:
        """A dispatcher and a worker."""
        self.start("dispatcher")
        self.start("worker", f"--concurrency={slots}")

    def git(self, *words: str, cwd: Path | None = None) -> str:
        """What a git command prints, both streams."""
        done = subprocess.run(
            [*self._prefix, "git", *words],
            env=self.environment,
            cwd=cwd or self.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )
        said = (done.stdout + done.stderr).decode()
        if done.returncode:
            raise AssertionError(f"git {' '.join(words)}: {said}")
        return said.strip()

    def make_repository(self, name: str = "team") -> Path:
        """A bare repository with the hook, and a clone of it beside; returns the clone."""
        bare, clone = self.folder / f"{name}.git", self.folder / name
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        self.ciapp("hook", "install", str(bare), "--name", name)
        self.git("clone", "--quiet", str(bare), str(clone))
        return clone

    def commit(self, clone: Path, files: dict[str, str], subject: str = "Change") -> str:
        """Commit these files; returns the commit."""
        for name, text in files.items():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_text(text)
        self.git("add", "--all", cwd=clone)
        self.git("commit", "--quiet", "--allow-empty", "--message", subject, cwd=clone)
        return self.git("rev-parse", "HEAD", cwd=clone)

    def push(self, clone: Path, *words: str) -> str:
        """What `git push` prints."""
        return self.git("push", *(words or ("origin", "HEAD:main")), cwd=clone)

    def push_commit(self, clone: Path, files: dict[str, str], subject: str = "Change") -> str:
        """Commit and push; returns the commit."""
        commit = self.commit(clone, files, subject)
        self.push(clone)
        return commit

    def runs(self, commit: str, repo: str = "team") -> list[Run]:
        """The commit's runs, as the ledger has them now."""
        return find_runs(self.database, repo, [commit])

    def report(self, commit: str, repo: str = "team", deadline_s: float = DEADLINE_S) -> Report:
        """The report of the commit's only run, once it has finished."""

        def finished() -> Run | None:
            runs = self.runs(commit, repo)
            return runs[0] if runs and runs[0].state is State.FINISHED else None

        try:
            run = eventually(finished, f"the run of {commit} finishes", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None
        report = report_on(self.database, run)
        assert report is not None
        return report

    def logs(self) -> str:
        """The end of what each process said."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in self.folder.glob("*.log"))

    def remove(self) -> None:
        """Kill what still runs, and delete the folder, unless it is kept."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for database in self._databases.values():
            database.close()
        if self.is_kept:
            return
        # A dispatcher that a hook started for a moment may still be at work here.
        eventually(self._is_deleted, f"{self.folder} is deleted")

    def _is_deleted(self) -> bool:
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)
        return not self.folder.exists()


class Embedded:
    """Mixed into a test case: the embedded default."""

    def install(self, *settings: str) -> Installation:
        assert isinstance(self, unittest.TestCase)
        return Installation(self, *settings)


class RabbitmqPostgresql:
    """Mixed into a test case: a quorum queue on RabbitMQ, in a virtual host of its own, and PostgreSQL."""

    def install(self, *settings: str) -> Installation:
        assert isinstance(self, unittest.TestCase)
        return Installation(
            self, *settings, broker=rabbitmq_host(self), database=_plain(fresh_postgresql_url(self))
        )


class RedisPostgresql:
    """Mixed into a test case: Redis, and PostgreSQL."""

    def install(self, *settings: str) -> Installation:
        assert isinstance(self, unittest.TestCase)
        return Installation(
            self, *settings, broker=PrivateRedis(self).url, database=_plain(fresh_postgresql_url(self))
        )


def rabbitmq_host(test: unittest.TestCase, name: str = "") -> str:
    """The URL of a fresh virtual host on the RabbitMQ that listens, deleted after the test."""
    url = standard_rabbitmq_url()
    user = url.split("//")[1].split(":")[0]
    if shutil.which("rabbitmqctl") is None:  # it stands in /usr/sbin, which is on root's PATH alone
        need("RabbitMQ", "rabbitmqctl is not on the PATH")
    name = name or f"ciapp-test-{uuid.uuid4().hex[:12]}"
    for words in (("add_vhost", name), ("set_permissions", "-p", name, user, ".*", ".*", ".*")):
        done = subprocess.run(["rabbitmqctl", *words], capture_output=True, check=False)
        if done.returncode:
            need("RabbitMQ", f"rabbitmqctl {words[0]}: {done.stderr.decode()}")
    delete = ["rabbitmqctl", "delete_vhost", name]
    test.addCleanup(subprocess.run, delete, capture_output=True, check=False)
    return url.rpartition("//")[0] + f"/{name}"


def _plain(url: str) -> str:
    """The URL as a user writes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")
