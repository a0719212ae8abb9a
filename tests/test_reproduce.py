"""`ciapp reproduce`: a worker's run once more, and how it compares; a shell where it ran."""

from __future__ import annotations

import json
import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time
import unittest
from typing import Any
from unittest import mock
from xml.etree import ElementTree

from ciapp.errors import UsageError
from ciapp.results import report as reports
from ciapp.results.report import Findings, FixtureResult, Outcome, Report, Status
from ciapp.settings import Limits, Settings
from ciapp.testing.environment import default_python
from ciapp.testing.reproduction import (
    interpreter_like,
    machine_differences,
    outcome_differences,
    pick_tests,
)
from ciapp.testing.suite import platform_name
from tests.support.installation import Installation
from tests.support.processes import processes_with
from tests.support.samples import find_pythons
from tests.support.sandboxes import WEAK, needs_bubblewrap

PLACE = """\
import os, unittest
class TestApp(unittest.TestCase):
    def test_place(self): self.assertEqual("/checkout", os.getcwd())
    def test_seed(self): self.fail("seed " + os.environ["PYTHONHASHSEED"])
    def test_value(self): self.assertEqual("value", os.environ["OWN"])
"""
PROMPT = "ciapp /"
CONFIG = '[env]\nOWN = "value"\n[limits]\ntest_s = 50\n'


@needs_bubblewrap
class TestReproduce(unittest.TestCase):
    """One worker's report, and what this machine makes of it."""

    @classmethod
    def setUpClass(cls) -> None:
        holder = unittest.TestCase()
        cls.addClassCleanup(holder.doCleanups)
        cls.ciapp = Installation(holder)
        clone = cls.ciapp.make_repository()
        cls.ciapp.start_all()
        cls.commit = cls.ciapp.push_commit(
            clone, {"tests/test_app.py": PLACE, "tests/test_lost.py": "import lost", ".ciapp.toml": CONFIG}
        )
        cls.report = cls.ciapp.report(cls.commit)

    def with_environ(self, **changes: str) -> None:
        patch = mock.patch.dict(self.ciapp.environment, changes)
        patch.start()
        self.addCleanup(patch.stop)

    def test_the_same_machine_gives_the_same_outcome_under_the_same_seed(self) -> None:
        said = self.ciapp.ciapp("reproduce", "team", self.commit, code=1)

        [seed] = {test.message for test in self.report.tests if "seed" in test.message}
        self.assertIn(seed, said)
        self.assertIn("FAILED (failures=1, errors=1)", said)
        self.assertIn("The outcome is the recorded one.\n", said)
        self.assertNotIn("Different on this machine", said)

    def test_one_test_alone_is_compared_by_itself(self) -> None:
        said = self.ciapp.ciapp("reproduce", "team", "HEAD", "test_value", code=0)
        self.assertIn("Ran 1 test in", said)
        self.assertIn("The outcome is the recorded one.\n", said)

        said = self.ciapp.ciapp("reproduce", "team", "HEAD", "test_lost", "-v", code=1)
        self.assertIn("test_lost (unittest.loader._FailedTest.test_lost) ... ERROR: ", said)
        self.assertIn("The outcome is the recorded one.\n", said)

    def test_one_document_is_on_stdout_and_tells_how_it_compares(self) -> None:
        junit = self.ciapp.folder / "again.xml"
        self.with_environ(CIAPP_SANDBOX=WEAK)
        words = ("reproduce", "team", self.commit, "--json", "--junit", str(junit))
        done = subprocess.run(
            [sys.executable, "-m", "ciapp.cli", *words],
            env=self.ciapp.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

        document = json.loads(done.stdout)
        self.assertEqual((1, "failed"), (done.returncode, document["status"]))
        self.assertEqual((self.commit, "default"), (document["commit"], document["environment"]))
        [said] = document["machine_differences"]
        self.assertTrue(said.startswith("sandbox: recorded with bubblewrap, here limits"), said)
        self.assertEqual(
            ["test_app.TestApp.test_place: recorded passed, here failed"], document["outcome_differences"]
        )
        self.assertIn("FAILED (failures=2, errors=1)", done.stderr)
        self.assertEqual("4", ElementTree.parse(junit).getroot().get("tests"))
        said = self.ciapp.ciapp("reproduce", "team", "HEAD", "--shell", "--json", code=2)
        self.assertIn("--shell and --json both want the terminal; leave one out", said)

    def test_limits_are_the_recorded_ones_whatever_this_machines_settings_say(self) -> None:
        self.assertEqual(50.0, self.report.limits and self.report.limits.test_s)
        self.with_environ(CIAPP_LIMITS_TEST_S="40")  # below what the commit asks for

        said = self.ciapp.ciapp("reproduce", "team", "HEAD", "test_value", code=0)

        self.assertIn("The outcome is the recorded one.\n", said)

    def test_another_sandbox_is_said_and_so_is_what_came_out_otherwise(self) -> None:
        self.with_environ(CIAPP_SANDBOX=WEAK)

        said = self.ciapp.ciapp("reproduce", "team", self.commit[:10], code=1)

        self.assertIn(
            "Different on this machine:\n  sandbox: recorded with bubblewrap, here limits (the setting"
            ' sandbox is "off-as-root")\n',
            said,
        )
        self.assertIn(
            "The outcome differs from the recorded one:\n"
            "  test_app.TestApp.test_place: recorded passed, here failed\n",
            said,
        )

    def test_what_cannot_be_reproduced_is_said(self) -> None:
        said = self.ciapp.ciapp("reproduce", "team", "HEAD", "test_none", code=2)
        self.assertIn("has 'test_none' in its id; see `ciapp report team", said)
        said = self.ciapp.ciapp("reproduce", "team", "HEAD", "--environment", "3.1", code=4)
        self.assertIn("has no run in environment '3.1'; it has default", said)
        said = self.ciapp.ciapp("reproduce", "team", "HEAD", "--shell", code=2)
        self.assertIn("--shell needs a terminal", said)

    def test_a_shell_has_the_tests_environment_and_job_control_and_leaves_nothing(self) -> None:
        for sandbox in ("auto", WEAK):
            with self.subTest(sandbox):
                mark = f"97{os.getpid()}{time.monotonic_ns() % 100000}"
                shell = Terminal(
                    self,
                    {**self.ciapp.environment, "CIAPP_SANDBOX": sandbox},
                    ["reproduce", "team", "HEAD", "test_value", "--shell"],
                )
                shell.type(f"echo $OWN-$PYTHONHASHSEED; sleep {mark} & jobs\n")
                shell.wait_for(f"value-{self.report.hash_seed}")
                shell.wait_for("Running")
                shell.wait_for(PROMPT)
                # Before it is in the foreground, a ^C would be the shell's own.
                shell.type("sh -c 'echo rea\"\"dy; exec cat'\n")
                shell.wait_for("ready")
                shell.type("\x03")
                shell.wait_for(PROMPT)  # a terminal forgets what is typed before it has taken a ^C
                shell.type("git rev-parse HEAD && exit\n")
                shell.wait_for(self.commit)

                self.assertEqual(0, shell.end())
                self.assertEqual([], processes_with(mark))


class Terminal:
    """`ciapp` at a terminal, with somebody who types once the shell is there."""

    def __init__(self, test: unittest.TestCase, environ: dict[str, str], words: list[str]) -> None:
        self.shown = ""
        self._pid, self._keyboard = pty.fork()
        if self._pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "ciapp.cli", *words], environ)
        test.addCleanup(os.close, self._keyboard)
        self.wait_for(PROMPT)

    def type(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def wait_for(self, text: str, within_s: float = 60.0) -> None:
        """Until the terminal shows it; what came before it is forgotten."""
        deadline = time.monotonic() + within_s
        while text not in self.shown:
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"the terminal never shows {text!r}:\n{self.shown}")
        self.shown = self.shown.partition(text)[2]

    def end(self, within_s: float = 60.0) -> int:
        """Exit status of the command."""
        deadline = time.monotonic() + within_s
        while self._read():
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
                raise AssertionError(f"the command does not end:\n{self.shown}")
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        if select.select([self._keyboard], [], [], 1.0)[0]:
            try:
                self.shown += os.read(self._keyboard, 4096).decode("utf-8", "replace")
            except OSError:
                return False
        return True


def made(status: Status = Status.FAILED, reason: str = "", **outcomes: str) -> Report:
    tests = tuple(reports.TestResult(id=f"m.{name}", outcome=Outcome(one)) for name, one in outcomes.items())
    return Report(repo="team", commit="c" * 40, tree="", status=status, reason=reason, tests=tests)


class TestComparing(unittest.TestCase):
    def differences(self, recorded: Report, here: Findings, only: tuple[str, ...] | None = None) -> list[str]:
        keys = None if only is None else [(f"m.{name}", 0) for name in only]
        return outcome_differences(recorded, here, keys)

    def test_tests_are_compared_by_outcome_and_those_of_one_side_alone_are_named(self) -> None:
        self.assertEqual([], self.differences(made(a="failed", b="passed"), made(b="passed", a="failed")))
        self.assertEqual(
            [
                "m.a: recorded failed, here passed",
                "m.b: recorded passed, here not there",
                "m.c: recorded not there, here passed",
            ],
            self.differences(made(a="failed", b="passed"), made(a="passed", c="passed")),
        )

    def test_statuses_count_for_the_whole_and_of_a_part_where_it_did_not_run(self) -> None:
        recorded, here = made(a="failed", b="passed"), made(Status.PASSED, b="passed")
        self.assertEqual([], self.differences(recorded, here, ("b",)))
        broken = made(Status.SETUP_FAILED, "no uv")
        self.assertEqual(
            "status: recorded failed, here setup-failed: no uv", self.differences(recorded, broken, ("b",))[0]
        )
        self.assertEqual([], self.differences(broken, broken))

    def test_fixtures_count_for_the_whole(self) -> None:
        fixture = FixtureResult(phase="tearDownClass", scope="m.T")
        here = Findings(status=Status.FAILED, fixtures=(fixture,))
        self.assertEqual(["tearDownClass (m.T): failed here alone"], self.differences(made(), here))

    def test_a_long_list_is_cut(self) -> None:
        many = {f"t{number:02}": "passed" for number in range(50)}
        found = self.differences(made(Status.FAILED), made(Status.FAILED, **many))
        self.assertEqual((21, "and 30 more"), (len(found), found[-1]))

    def test_a_test_is_picked_by_its_id_else_by_a_part_of_it(self) -> None:
        recorded = made(a="failed", ab="passed")
        self.assertEqual((("m.a", 0),), pick_tests(recorded, "m.a"))
        self.assertEqual((("m.a", 0), ("m.ab", 0)), pick_tests(recorded, "a"))
        with self.assertRaises(UsageError):
            pick_tests(recorded, "x")


class TestMachine(unittest.TestCase):
    def differences(self, held: int = resource.RLIM_INFINITY, **fields: Any) -> list[str]:
        """On a machine of 4 GiB whose users are held to `held` of everything."""
        own = default_python()
        facts = {"python": own.version, "limits": Limits(), "platform": platform_name(), **fields}
        recorded = Report(repo="team", commit="c", tree="", status=Status.PASSED, **facts)
        sizes = {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 4096}
        with (
            mock.patch("os.sysconf", side_effect=sizes.__getitem__),
            mock.patch("resource.getrlimit", return_value=(held, held)),
        ):
            return machine_differences(recorded, own, facts["limits"] or Limits(), Settings())

    def test_the_same_machine_has_no_difference(self) -> None:
        self.assertEqual([], self.differences())

    def test_each_difference_is_a_sentence(self) -> None:
        version = default_python().version
        self.assertEqual(
            [
                f"Python: recorded with 3.9.1, here {version}",
                f"platform: recorded with Plan 9, here {platform_name()}",
            ],
            self.differences(python="3.9.1", platform="Plan 9"),
        )
        self.assertEqual(
            ["memory: this machine has 4096 MiB, below the limit of 5000 MiB"],
            self.differences(limits=Limits(memory_mib=5000)),
        )
        [said] = self.differences(limits=None)
        self.assertIn("limits: the report does not say", said)

    def test_a_limit_that_the_user_is_held_to_is_named(self) -> None:
        said = self.differences(held=100)
        self.assertIn("limits: open files is held to 100 here by `ulimit -H`, not 4096", said)
        self.assertEqual(4, len(said))

    def test_the_interpreter_is_the_nearest_that_there_is(self) -> None:
        self.assertEqual(default_python(), interpreter_like(default_python().version, Settings()))
        self.assertEqual(default_python(), interpreter_like("3.99.1", Settings()))
        others = [one for one in find_pythons() if one.version.split(".")[1] != str(sys.version_info.minor)]
        if not others:
            self.skipTest("one Python alone")
        wanted = others[-1].version
        found = interpreter_like(wanted.rpartition(".")[0] + ".99", Settings(sandbox=WEAK))
        self.assertEqual(wanted.rpartition(".")[0], found.version.rpartition(".")[0])


if __name__ == "__main__":
    unittest.main()
