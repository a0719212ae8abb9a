"""The command line: what it says, and with which exit code, of good input and of bad."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import unittest
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

from sqlalchemy import text

from ciapp.cli import main
from ciapp.intake.dispatcher import Dispatcher
from ciapp.intake.presence import Presence
from ciapp.intake.register import install_and_register
from ciapp.results import report as reports
from ciapp.results import runs as life
from ciapp.results.database import Database
from ciapp.results.report import Findings, Outcome, Status
from ciapp.results.runs import Run, beat_run, claim_run, find_runs
from ciapp.results.store import make_report, save_report
from ciapp.settings import load_settings
from tests.support.dispatching import add_worker
from tests.support.git_repositories import WorkTree, git, new_bare_repository, new_folder
from tests.support.servers import free_port

RED = reports.TestResult(
    id="test_a.TestA.test_red",
    outcome=Outcome.FAILED,
    duration_s=0.01,
    message="AssertionError: \x1b]0;owned\x07",
    traceback="Traceback (most recent call last):\nAssertionError: \x1b]0;owned\x07",
)
GREEN = reports.TestResult(id="test_a.TestA.test_green", outcome=Outcome.PASSED, duration_s=0.01)
COMMAND = [sys.executable, "-m", "ciapp.cli"]
CODE = Path(__file__).parent.parent


class CommandLine(unittest.TestCase):
    """A state folder of its own, and no settings but those that a test gives."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.state = self.folder / "state"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CIAPP_", "GIT_"))}
        self.environ = {
            **kept,
            "CIAPP_STATE_DIR": str(self.state),
            "CIAPP_HOST": "here",
            "HOME": str(self.folder),
            "PYTHONPATH": str(CODE),
        }
        patch = mock.patch.dict(os.environ, self.environ, clear=True)
        patch.start()
        self.addCleanup(patch.stop)

    def call(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `ciapp WORDS`."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["ciapp", *words]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        return code, out.getvalue(), err.getvalue()

    def refused(self, code: int, sentence: str, *words: str, **environ: str) -> None:
        """`ciapp WORDS` ends with this code, says this one sentence, and shows no traceback."""
        with mock.patch.dict(os.environ, environ):
            self.assertEqual((code, "", f"ciapp: {sentence}\n"), self.call(*words))


class TestBadInput(CommandLine):
    def write(self, content: str) -> str:
        file = self.folder / "ciapp.toml"
        file.write_text(content)
        return str(file)

    def test_settings_that_cannot_be_used_are_named(self) -> None:
        file = self.folder / "ciapp.toml"
        for content, sentence in {
            "leese_s = 1": f"{file}: unknown setting 'leese_s'; did you mean 'lease_s'?",
            "lease_s = 'x'": f"{file}: setting 'lease_s': expected `float`, got `str`; correct it",
            "lease_s = ": f"{file} is not valid TOML: Invalid value (at end of document); correct it there",
            "broker_url = 'foo://u:secret@h'": f"{file}: setting 'broker_url' starts with 'foo://'; "
            "give one of embedded, amqp, amqps, pyamqp, redis, rediss, sentinel, then ://…",
            "database_url = 'mysql://u:secret@h'": f"{file}: setting 'database_url' starts with 'mysql://'; "
            "give one of sqlite, postgresql, postgresql+psycopg, postgres, then ://…",
            "database_url = 'secret'": f"{file}: setting 'database_url' is no URL; "
            "give one of sqlite, postgresql, postgresql+psycopg, postgres, then ://…",
        }.items():
            with self.subTest(content):
                self.refused(2, sentence, "--config", self.write(content), "status")

    def test_a_settings_file_that_is_not_there_is_named(self) -> None:
        sentence = "settings file /nowhere/c.toml does not exist; check --config and $CIAPP_CONFIG"
        self.refused(2, sentence, "--config", "/nowhere/c.toml", "status")
        self.refused(2, sentence, "doctor", CIAPP_CONFIG="/nowhere/c.toml")

    def test_a_variable_that_names_no_setting_is_named(self) -> None:
        self.refused(
            2, "$CIAPP_LEASE names no setting; did you mean CIAPP_LEASE_S?", "log", "x", CIAPP_LEASE="1"
        )

    def test_a_state_folder_that_cannot_be_made_is_named(self) -> None:
        file = self.folder / "file"
        file.touch()
        sentence = f"{file}/state cannot be made: Not a directory; set state_dir elsewhere"
        for words in (("status",), ("dispatcher", "--once"), ("up",), ("worker",)):
            with self.subTest(words):
                self.refused(2, sentence, *words, CIAPP_STATE_DIR=f"{file}/state")

    def test_a_database_of_a_newer_version_is_left_alone(self) -> None:
        self.call("status")
        database = Database(load_settings().database)
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        code, out, err = self.call("status")
        self.assertEqual((3, ""), (code, out))
        self.assertRegex(err, r"^ciapp: ledger \S+ .*9999.*newer ciapp.*\n$")

    def test_a_database_that_does_not_answer_is_named_without_its_password(self) -> None:
        port = free_port()
        url = f"postgresql://ann:secret@127.0.0.1:{port}/ciapp"
        for words in (("status",), ("worker",), ("dispatcher",), ("up",)):
            with self.subTest(words), mock.patch.dict(os.environ, CIAPP_DATABASE_URL=url):
                code, out, err = self.call(*words)
                self.assertEqual((3, ""), (code, out))
                self.assertIn(f"127.0.0.1:{port}/ciapp: connection failed: ", err)
                self.assertNotIn("secret", err)
                self.assertEqual(1, err.count("\n"))

    def test_a_repository_that_nobody_knows_is_named(self) -> None:
        self.refused(
            2,
            r"the ledger knows no repository 'n\x1b' (it knows none yet); add it with `ciapp hook install`",
            "log",
            "n\x1b",
        )

    def test_a_folder_that_is_no_repository_is_named(self) -> None:
        (self.folder / "work").mkdir()
        sentence = "is not a git repository; give the folder of a bare repository or of a clone"
        for path in (self.folder / "work", self.folder / "nowhere"):
            for command in ("install", "remove"):
                with self.subTest(command, path=path):
                    self.refused(2, f"{path} {sentence}", "hook", command, str(path))

    def test_click_says_what_is_wrong_with_a_command(self) -> None:
        for words, said in {
            ("nope",): "No such command 'nope'.",
            ("log",): "Missing argument 'REPO'.",
            ("log", "x", "--limit", "0"): "0 is not in the range x>=1.",
            ("up", "--port", "99999"): "99999 is not in the range 0<=x<=65535.",
        }.items():
            code, _, err = self.call(*words)
            self.assertEqual(2, code)
            self.assertIn(said, err)

    def test_a_fault_of_our_own_is_one_sentence_and_debug_shows_where(self) -> None:
        broken = mock.patch("ciapp.cli.count_queues", side_effect=ZeroDivisionError("x"))
        with broken:
            code, _, err = self.call("status")
        self.assertEqual(70, code, "not what a service that cannot be reached ends with")
        self.assertEqual(
            "ciapp: this is a fault of ciapp's own (ZeroDivisionError: x); `--debug` shows where\n", err
        )
        with broken:
            debugged, _, err = self.call("--debug", "status")
        self.assertEqual(code, debugged)
        self.assertIn("Traceback (most recent call last)", err)
        self.assertIn("ZeroDivisionError: x", err)

    def test_debug_shows_where_a_sentence_comes_from(self) -> None:
        done = subprocess.run(
            [*COMMAND, "--debug", "log", "nope"], env=self.environ, capture_output=True, check=False
        )
        self.assertEqual(2, done.returncode, "not 1, which would be a verdict")
        self.assertIn(b"Traceback (most recent call last)", done.stderr)
        self.assertIn(b"UsageError: the ledger knows no repository 'nope'", done.stderr)

    def test_a_reader_that_has_gone_is_no_verdict(self) -> None:
        self.call("status")  # makes the ledger, and says so
        for words in (["status"], ["--help"], ["log", "--help"], ["log", "nope"], ["nope"]):
            with self.subTest(words):
                read, write = os.pipe()
                os.close(read)
                done = subprocess.run(
                    [*COMMAND, *words], env=self.environ, stdout=write, stderr=write, check=False
                )
                os.close(write)
                self.assertEqual(141, done.returncode)

    def test_the_list_of_commands_cuts_no_sentence(self) -> None:
        for words in (("--help",), ("hook", "--help")):
            _, said, _ = self.call(*words)
            self.assertNotRegex(said.partition("Commands:")[2], r"\.\.\.|^$")

    def test_a_monitor_that_cannot_listen_says_where(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = subprocess.run(
                [*COMMAND, "monitor", f"--port={port}"], env=self.environ, capture_output=True, check=False
            )
        self.assertEqual(2, done.returncode)
        self.assertRegex(
            done.stderr.decode(),
            rf"^ciapp: the monitor cannot listen with --address=\S+ --port={port}: "
            "Address already in use; give another --port\n$",
        )


class TestStart(CommandLine):
    def printed_by(self, script: str) -> str:
        """What a Python prints that runs this."""
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=True).stdout

    def test_a_command_loads_nothing_that_it_has_no_use_for_and_collects_nothing_meanwhile(self) -> None:
        script = (
            "import click, gc, sys\n"
            "looks = []\n"
            "gc.callbacks.append(lambda phase, info: looks.append(phase))\n"
            "import ciapp.cli\n"
            "print(len(looks), gc.isenabled(), *sys.modules)"
        )
        looks, is_collecting, *modules = self.printed_by(script).split()
        heavy = {"celery", "kombu", "flower", "tornado", "alembic", "sqlalchemy.dialects.postgresql"}
        self.assertEqual(set(), heavy & set(modules))
        self.assertLess(int(looks), 10)
        self.assertEqual("True", is_collecting)

    def test_a_worker_loads_none_of_celerys_other_commands(self) -> None:
        script = (
            "import sys\n"
            "from ciapp.celery import run_worker\n"
            "assert run_worker(['--help']) == 0\n"
            "print('modules', *sys.modules)"
        )
        said, _, modules = self.printed_by(script).rpartition("modules")
        self.assertRegex(said, "^Usage: ciapp worker")
        heavy = {"celery.bin.celery", "celery.bin.amqp", "flower", "tornado", "prompt_toolkit"}
        self.assertEqual(set(), heavy & set(modules.split()))

    def test_a_worker_does_not_leave_the_place_where_it_is_started(self) -> None:
        for option in ("-D", "--detach"):
            code, _, said = self.call("worker", "--concurrency=1", option)
            self.assertEqual(2, code)
            self.assertRegex(said, "^ciapp: ciapp worker stays where it is started: leave --detach out, ")


class Pushed(CommandLine):
    """A repository `team` with one commit on main, which the dispatcher has taken in."""

    def setUp(self) -> None:
        super().setUp()
        self.bare = new_bare_repository(self)
        self.tree = WorkTree(self, self.bare)
        self.settings = load_settings()
        self.database = Database(self.settings.database)
        self.database.migrate()
        install_and_register(self.settings, self.database, self.bare, name="team")
        presence = Presence()  # so that pushes start no dispatcher
        presence.announce(self.bare)
        self.addCleanup(presence.close)
        self.dispatcher = Dispatcher(self.settings, self.database, lambda runs: None)
        self.commit = self.push("One")

    def push(self, subject: str, *options: str) -> str:
        commit = self.tree.commit(subject)
        self.tree.push(*options, "main")
        self.dispatcher.step()
        return commit

    def add_worker(self, *environments: str) -> None:
        add_worker(self.database, *environments, slots=2)

    def run_of(self, commit: str) -> Run:
        [run] = find_runs(self.database, "team", [commit])
        return run

    def start(self, commit: str) -> Run:
        run = self.run_of(commit)
        claimed = claim_run(self.database, run.id, attempt=run.attempt + 1, worker="celery@here#0")
        assert claimed is not None
        return claimed

    def finish(self, commit: str, *tests: reports.TestResult, status: Status = Status.PASSED) -> None:
        found = Findings(status=status, tests=tests, duration_s=1.25)
        run = self.start(commit)
        save_report(self.database, run.id, make_report(run, found, finished_at=datetime.now(UTC)))


class TestVerdicts(Pushed):
    def test_report_of_a_run_that_has_not_finished_says_where_it_is(self) -> None:
        short = self.commit[:12]
        unfinished = f"commit {short} of team has not finished"
        follow = "see `ciapp wait team HEAD`"
        self.refused(4, f"{unfinished}: waits for a worker; {follow}", "report", "team")
        self.add_worker()
        self.refused(4, f"{unfinished}: queued; {follow}", "report", "team")
        run = self.start(self.commit)
        beat_run(self.database, run.id, attempt=1, known=3, done=2, failed=1)
        self.refused(4, f"{unfinished}: running 2/3, 1 failed; {follow}", "report", "team")

    def test_report_exits_with_the_verdict(self) -> None:
        for status, code in (
            (Status.PASSED, 0),
            (Status.FAILED, 1),
            (Status.NO_TESTS, 1),
            (Status.INFRA_ERROR, 3),
        ):
            commit = self.push(status.value)
            self.finish(commit, GREEN, status=status)
            with self.subTest(status):
                self.assertEqual(code, self.call("report", "team")[0])
                self.assertEqual(code, self.call("wait", "team")[0])

    def test_no_such_run_is_4_and_no_such_revision_is_2(self) -> None:
        self.refused(2, "team has no revision 'nope'; its branches are main", "report", "team", "nope")
        self.refused(2, "team has no revision '--all'; its branches are main", "log", "team", "--", "--all")
        skipped = self.push("Skipped", "-o", "ci.skip")
        sentence = (
            f"commit {skipped[:12]} of team has no run; queue one with `ciapp rerun team {skipped[:12]}`, "
            "or `ciapp wait` for it if it was just pushed"
        )
        self.refused(4, sentence, "report", "team")
        started = time.monotonic()
        self.refused(4, sentence, "wait", "team")
        self.assertLess(time.monotonic() - started, 5)
        self.refused(4, sentence, "cancel", "team")
        self.finish(self.commit, GREEN)
        self.refused(
            4,
            f"commit {self.commit[:12]} has no run in environment 'x'; it has default",
            *("report", "team", "HEAD~1", "--environment", "x"),
        )

    def test_wait_says_at_once_that_what_is_pushed_to_a_ref_is_not_tested(self) -> None:
        tree = WorkTree(self, self.bare)
        noted = tree.commit("A note")
        tree.push("main:refs/notes/commits")
        config = self.folder / "ciapp.toml"
        config.write_text('[repository.team.refs]\n"refs/heads/wip/*" = "off"\n')
        tree.git("checkout", "--quiet", "--orphan", "wip")
        draft = tree.commit("A draft")
        tree.push("wip:refs/heads/wip/a")
        for revision, commit, ref in (
            (noted[:10], noted, "refs/notes/commits"),
            ("wip/a", draft, "refs/heads/wip/a"),
        ):
            said = (
                f"commit {commit[:12]} of team is on {ref} alone, and nothing that is pushed there is tested "
                f"([repository.team.refs]); queue it with `ciapp rerun team {commit[:12]}`"
            )
            began = time.monotonic()
            with self.subTest(ref):
                self.refused(4, said, "--config", str(config), "wait", "team", revision)
                self.assertLess(time.monotonic() - began, 5)

    def test_wait_gives_up_in_time(self) -> None:
        started = time.monotonic()
        code, out, err = self.call("wait", "team", "--timeout", "0.3")
        self.assertEqual((4, ""), (code, out))
        sentence = f"commit {self.commit[:12]} of team has not finished in time: waits for a worker"
        self.assertIn(f"ciapp: {sentence}; see `ciapp status`\n", err)
        self.assertLess(time.monotonic() - started, 10)

    def test_wait_for_a_push_that_nobody_takes_in_says_where_to_look(self) -> None:
        commit = self.tree.commit("Two")
        self.tree.push("main")
        said = f"commit {commit[:12]} of team is not in the ledger; see `ciapp doctor` if it was just pushed"
        code, _, err = self.call("wait", "team", "--timeout", "0.3")
        self.assertEqual(
            (4, f"ciapp: {said}, or queue it with `ciapp rerun team {commit[:12]}`\n"), (code, err)
        )

    def test_wait_at_once_after_a_push_waits_for_the_dispatcher_to_take_it_in(self) -> None:
        self.wait_at_once_after_a_push("here", lambda commit: "HEAD")

    def test_wait_on_another_host_waits_for_the_ledger_to_have_the_commit(self) -> None:
        self.wait_at_once_after_a_push("there", lambda commit: commit[:10])

    def test_wait_on_another_host_refuses_at_once_what_is_no_commit_id(self) -> None:
        started = time.monotonic()
        unknown = "the ledger knows no commit 'topic' of team, which is on here"
        sentence = f"{unknown}; give a commit id, a tag or a branch: main"
        self.refused(2, sentence, "wait", "team", "topic", CIAPP_HOST="there")
        self.assertLess(time.monotonic() - started, 5)

    def wait_at_once_after_a_push(self, host: str, revision: Callable[[str], str]) -> None:
        commit = self.tree.commit("Two")
        self.tree.push("main")

        def serve() -> None:
            time.sleep(0.5)
            self.dispatcher.step()
            self.finish(commit, GREEN)

        thread = threading.Thread(target=serve)
        thread.start()
        with mock.patch.dict(os.environ, CIAPP_HOST=host):
            code, out, _ = self.call("wait", "team", revision(commit))
        thread.join()
        self.assertEqual(0, code)
        self.assertRegex(out, rf"^{commit[:12]}  passed    1 passed +1\.2s  Two\n$")

    def test_junit_goes_to_a_file_or_the_reason_is_said(self) -> None:
        self.finish(self.commit, GREEN, RED, status=Status.FAILED)
        file = self.folder / "report.xml"
        self.assertEqual((1, "", ""), self.call("report", "team", "--junit", str(file)))
        self.assertEqual(2, len(ElementTree.parse(file).findall(".//testcase")))
        file.unlink()
        code, out, _ = self.call("report", "team", "--json", "--junit", str(file))
        self.assertEqual((1, "failed"), (code, json.loads(out)["status"]))
        self.assertEqual(2, len(ElementTree.parse(file).findall(".//testcase")))
        nowhere = self.folder / "no" / "report.xml"
        self.refused(
            2,
            f"{nowhere} cannot be written: No such file or directory; give --junit another file",
            *("report", "team", "--junit", str(nowhere)),
        )

    def test_a_repository_without_branches_says_so(self) -> None:
        empty = new_bare_repository(self, "empty.git")
        install_and_register(self.settings, self.database, empty, name="empty")
        self.refused(2, "empty has no branch yet, so 'HEAD' names nothing; push one", "wait", "empty")


class TestCancelAndRerun(Pushed):
    def state_now(self) -> str:
        run = self.run_of(self.commit)
        return run.status.value if run.status else run.state.value

    def test_at_every_state_and_again(self) -> None:
        short = self.commit[:12]
        cancelled = (0, f"commit {short} of team: cancelled\n", "")
        ended = (0, f"commit {short} of team: finished already\n", "")
        follow = f"follow it with `ciapp wait team {short}`\n"
        queued = (0, f"commit {short} of team is queued; {follow}", "")
        there = (0, f"commit {short} of team is waiting or running already; {follow}", "")

        self.assertEqual((there, "queued"), (self.call("rerun", "team"), self.state_now()))
        self.assertEqual((cancelled, "cancelled"), (self.call("cancel", "team"), self.state_now()))
        self.assertEqual((ended, "cancelled"), (self.call("cancel", "team"), self.state_now()))
        self.assertEqual((queued, "queued"), (self.call("rerun", "team"), self.state_now()))
        self.start(self.commit)
        self.assertEqual((there, "running"), (self.call("rerun", "team"), self.state_now()))
        self.assertEqual((cancelled, "cancelled"), (self.call("cancel", "team"), self.state_now()))
        self.assertEqual((queued, "queued"), (self.call("rerun", "team"), self.state_now()))
        self.finish(self.commit, GREEN)
        self.assertEqual((ended, "passed"), (self.call("cancel", "team"), self.state_now()))
        self.assertEqual((queued, "queued"), (self.call("rerun", "team"), self.state_now()))

    def test_what_is_queued_again_shows_nothing_of_what_it_came_to_before(self) -> None:
        self.finish(self.commit, GREEN)
        self.add_worker()
        self.call("rerun", "team")
        self.assertEqual(f"{self.commit[:12]}  {'queued':37}  One\n", self.call("log", "team")[1])
        self.call("cancel", "team")
        self.assertEqual(f"{self.commit[:12]}  {'cancelled':37}  One\n", self.call("log", "team")[1])

    def test_report_and_wait_of_a_cancelled_run_exit_with_1(self) -> None:
        self.call("cancel", "team")
        code, out, _ = self.call("report", "team")
        self.assertEqual(1, code)
        self.assertIn("cancelled by request", out)
        self.assertEqual(1, self.call("wait", "team")[0])

    def test_a_commit_from_before_the_hook_is_tested_when_it_is_asked_for(self) -> None:
        bare = new_bare_repository(self, "old.git")
        tree = WorkTree(self, bare)
        first, second = tree.commit("First"), tree.commit("Second")
        tree.push("main")
        install_and_register(self.settings, self.database, bare, name="old")
        for commit in (first, second):
            code, out, _ = self.call("rerun", "old", commit)
            self.assertEqual((0, True), (code, "is queued" in out))
            [run] = find_runs(self.database, "old", [commit])
            self.assertEqual(life.State.QUEUED, run.state)
            self.assertIn(commit, git(bare, "for-each-ref", "--format=%(objectname)", "refs/ciapp"))
        self.assertIn("waiting or running already", self.call("rerun", "old", first)[1])

    def test_a_commit_that_was_skipped_is_tested_when_it_is_asked_for(self) -> None:
        skipped = self.push("Skipped", "-o", "ci.skip")
        self.assertIn("is queued", self.call("rerun", "team")[1])
        self.assertEqual(life.State.QUEUED, self.run_of(skipped).state)


class TestHook(Pushed):
    def test_a_taken_name_is_refused_and_leaves_nothing_in_the_repository(self) -> None:
        other = new_bare_repository(self, "other.git")
        before = sorted(path.name for path in other.rglob("*"))
        self.refused(
            2,
            f"the name team belongs to here:{self.bare}; choose another with --name, "
            "or add --moved if that repository is here now",
            *("hook", "install", str(other), "--name", "team"),
        )
        self.assertEqual(before, sorted(path.name for path in other.rglob("*")))

    def test_a_repository_that_moved_keeps_its_history(self) -> None:
        moved = self.bare.with_name("moved.git")
        self.bare.rename(moved)
        code, *_ = self.call("hook", "install", str(moved))
        self.assertEqual(2, code)
        self.assertEqual(0, self.call("hook", "install", str(moved), "--moved")[0])
        self.tree.git("remote", "set-url", "origin", str(moved))
        second = self.push("Two")
        self.assertEqual(second, self.run_of(second).commit)
        self.assertEqual(2, len(self.call("log", "team")[1].splitlines()))

    def test_a_repository_whose_host_has_a_new_name_is_taken_over(self) -> None:
        with mock.patch.dict(os.environ, CIAPP_HOST="new-name"):
            self.assertEqual(2, self.call("hook", "install", str(self.bare))[0])
            self.assertEqual(0, self.call("hook", "install", str(self.bare), "--moved")[0])
            self.assertEqual(0, self.call("log", "team")[0])

    def test_installing_twice_changes_nothing(self) -> None:
        first = self.call("hook", "install", str(self.bare))
        self.assertEqual((0, f"hook installed in {self.bare}; pushes to it are tested as team\n", ""), first)
        self.assertEqual(first, self.call("hook", "install", str(self.bare)))

    def test_pushes_to_a_repository_without_its_hook_are_left_alone(self) -> None:
        self.assertEqual(0, self.call("hook", "remove", str(self.bare))[0])
        self.tree.commit("Two")
        self.tree.push("main")
        times = iter(range(1000, 9000, 60))
        dispatcher = Dispatcher(self.settings, self.database, lambda runs: None, lambda: float(next(times)))
        for _ in range(4):
            dispatcher.step()
        self.assertEqual(1, len(self.runs()))

    def runs(self) -> list[Run]:
        commits = git(self.bare, "rev-list", "main").split()
        return find_runs(self.database, "team", commits)


class TestShown(Pushed):
    def test_log_document_has_the_shape_that_the_readme_shows(self) -> None:
        self.finish(self.commit, GREEN)
        self.push("Two")
        code, out, _ = self.call("log", "team", "--json")
        document = json.loads(out)
        self.assertEqual((0, 1, "team"), (code, document["schema"], document["repo"]))
        self.assertEqual(["Two", "One"], [each["subject"] for each in document["commits"]])
        self.assert_shape("log", document)

    def test_status_document_has_the_shape_that_the_readme_shows(self) -> None:
        self.add_worker()
        self.start(self.commit)
        document = json.loads(self.call("status", "--json")[1])
        self.assertEqual(1, document["schema"])
        self.assert_shape("status", document)

    def test_report_document_is_the_report(self) -> None:
        self.finish(self.commit, GREEN, RED, status=Status.FAILED)
        code, out, _ = self.call("report", "team", "--json")
        document = json.loads(out)
        self.assertEqual(
            (1, 1, "failed", self.commit), (code, document["schema"], document["status"], document["commit"])
        )
        self.assertEqual([GREEN.id, RED.id], [test["id"] for test in document["tests"]])

    def test_nothing_that_a_commit_says_reaches_the_terminal_unescaped(self) -> None:
        ref = os.fsdecode(b"refs/heads/\xe9")
        commit = self.tree.git(
            "commit-tree",
            self.tree.git("write-tree"),
            stdin=b"\x1b]0;owned\x07 caf\xe9 \xe2\x80\xae\n",
            environ={"GIT_AUTHOR_NAME": "Eve\x1b[2J"},
        )
        self.tree.push(f"{commit}:{ref}")
        self.dispatcher.step()
        for words in (("log", "team", commit), ("status",)):
            self.assert_harmless(*words)
        self.start_and_tell(commit)
        self.assert_harmless("status")
        self.assert_harmless("report", "team", commit)
        run = self.run_of(commit)
        found = Findings(status=Status.FAILED, tests=(RED,), output="\x1b[31m", reason="\x1b[1m")
        save_report(self.database, run.id, make_report(run, found, finished_at=datetime.now(UTC)))
        for command in ("log", "report", "wait"):
            self.assert_harmless(command, "team", commit)
            if command != "wait":
                json.loads(self.call(command, "team", commit, "--json")[1])

    def start_and_tell(self, commit: str) -> None:
        run = self.start(commit)
        beat_run(self.database, run.id, attempt=1, known=5, done=1, failed=0)

    def assert_harmless(self, *words: str) -> None:
        _, out, err = self.call(*words)
        for shown in (out, err):
            self.assertNotRegex(shown, "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", words)
            shown.encode("utf-8")

    def assert_shape(self, name: str, document: object) -> None:
        readme = (CODE / "README.md").read_text("utf-8")
        [example] = re.findall(rf"`ciapp {name} --json`.*?```json\n(.*?)```", readme, re.DOTALL)
        self.assertEqual(shape(json.loads(example)), shape(document))

    def test_log_tells_what_the_dispatcher_has_yet_to_take_in_from_what_is_not_tested(self) -> None:
        self.push("Skipped", "-o", "ci.skip")
        self.tree.commit("Two")
        self.tree.commit("Three")
        self.tree.push("main")
        *_, old = lines = self.call("log", "team")[1].splitlines()
        self.assertIn("waits for a worker", old)
        to_come = "pushed, not taken in yet"
        self.assertEqual([to_come, to_come, "not tested"], [line[14:51].strip() for line in lines[:3]])

        self.dispatcher.step()
        self.assertNotIn(to_come, self.call("log", "team")[1])

    def test_log_goes_by_the_ledger_where_the_repository_is_gone(self) -> None:
        skipped = self.push("Skipped", "-o", "ci.skip")
        self.bare.rename(self.bare.with_name("away"))
        [line, _] = self.call("log", "team", skipped)[1].splitlines()
        self.assertIn("not tested", line)


class TestProgress(Pushed):
    def test_without_a_terminal_a_line_of_the_log_is_cut_nowhere(self) -> None:
        subject = "A subject of many words " * 8
        self.push(subject)
        with mock.patch.dict(os.environ, {"COLUMNS": "80"}):
            self.assertIn(subject.strip(), self.call("log", "team")[1])

    def test_on_a_terminal_a_bar_shows_tests_done_of_tests_known(self) -> None:
        run = self.start(self.commit)
        beat_run(self.database, run.id, attempt=1, known=40, done=10, failed=3)
        shown = self.watch_on_terminal("10/40, 3 failed")
        self.assertRegex(shown, r"\[#+-+\] +25%")
        self.assertRegex(shown, rf"team {self.commit[:12]} .*1 failed in 1\.2s|failed in 1\.2s")
        self.assertIn("\x1b[31mfailed", shown)

    def test_without_a_terminal_there_is_no_bar(self) -> None:
        self.finish(self.commit, GREEN)
        _, out, err = self.call("wait", "team")
        self.assertNotIn("\x1b", out + err)
        self.assertNotIn("[###", out + err)
        self.assertLessEqual(err.count("\n"), 1)

    def watch_on_terminal(self, progress: str) -> str:
        """What `ciapp wait` writes to a terminal; the run fails once it has shown this progress."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, "wait", "team"],
            env=self.environ | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown, finished = b"", False
        with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:
            while read := terminal.read(4096):
                shown += read
                if not finished and progress.encode() in shown:
                    finished = True
                    self.end_red()
        self.assertEqual(1, process.wait(30))
        self.assertTrue(finished, shown)
        return shown.decode()

    def end_red(self) -> None:
        run = self.run_of(self.commit)
        found = Findings(status=Status.FAILED, tests=(RED,), duration_s=1.25)
        save_report(self.database, run.id, make_report(run, found, finished_at=datetime.now(UTC)))


def shape(value: object) -> object:
    """Keys of a document, all the way down, whatever the values; lists by their first element."""
    if isinstance(value, dict):
        return {key: shape(each) if key != "counts" else {} for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


if __name__ == "__main__":
    unittest.main()
