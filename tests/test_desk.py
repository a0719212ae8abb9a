"""`ciapp run` as its users meet it: a process, for real projects in real folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from ciapp.testing.environment import default_python
from ciapp.testing.interpreters import minor_version
from tests.support.git_repositories import ENVIRONMENT, git, new_folder
from tests.support.levels import usual_level
from tests.support.processes import processes_with
from tests.support.samples import find_pythons
from tests.support.sandboxes import WEAK, needs_bubblewrap, tree_of, wait_until
from tests.support.services import need

OWN = minor_version(default_python().version)
CODE = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "ciapp.cli")
RED_AND_GREEN = """\
import os, unittest
class TestApp(unittest.TestCase):
    def test_green(self): pass
    def test_red(self): self.assertEqual(1, 2)
    def test_harm(self):
        with open("tests/test_app.py", "a") as file: file.write("broken(")
        os.remove("kept.txt")
"""
SLEEPER = """\
import subprocess, time, unittest
class TestApp(unittest.TestCase):
    def test_1(self): pass
    def test_2(self):
        subprocess.Popen(["sleep", "MARK"])
        time.sleep(300)
    def test_3(self): pass
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Desk(unittest.TestCase):
    """A project, a home without anything in it, and the command."""

    sandbox = "auto"

    def setUp(self) -> None:
        self.home = new_folder(self)
        self.project = new_folder(self) / "project"
        self.project.mkdir()
        # Root's state is where the identities of slots can reach it, which a home folder need not be.
        (self.home / "state").mkdir()
        self.home.chmod(0o711)
        self.environ = {
            **ENVIRONMENT,
            "HOME": str(self.home),
            "CIAPP_STATE_DIR": str(self.home / "state"),
            "CIAPP_SANDBOX": usual_level() if self.sandbox == "auto" else self.sandbox,
            "PYTHONPATH": str(CODE),
        }

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(text)

    def ciapp(self, *words: str, code: int | None = None) -> Said:
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.project,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        said = Said(done.returncode, done.stdout, done.stderr)
        if code is not None:
            self.assertEqual(code, said.code, said)
        return said

    def outcomes(self, *words: str) -> dict[str, str]:
        document = json.loads(self.ciapp("run", "--json", *words).out)
        return {test["id"].rpartition(".")[2]: test["outcome"] for test in document["tests"]}


class RunFacts(Desk):
    def test_a_tree_is_tested_in_a_copy_and_its_report_names_files_from_its_root(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN, "kept.txt": "kept"})
        before = tree_of(self.project)

        for _ in range(2):
            said = self.ciapp("run", code=1)

            self.assertIn(f"Tree:        {self.project}\n", said.out)
            self.assertIn("\n..F\n", said.out)
            self.assertIn('  File "tests/test_app.py", line 4, in test_red\n', said.out)
            self.assertIn("\nFAILED (failures=1)\n", said.out)
        self.assertEqual(before, tree_of(self.project))

    def test_changes_that_are_not_committed_are_tested(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN, "kept.txt": "kept"})
        git(self.project, "init", "--quiet")
        git(self.project, "add", "--all")
        git(self.project, "commit", "--quiet", "--message", "First")
        commit = git(self.project, "rev-parse", "HEAD")
        self.assertIn(f", {commit[:12]}\n", self.ciapp("run", code=1).out)

        self.write({"tests/test_app.py": RED_AND_GREEN.replace("(1, 2)", "(1, 1)"), "tests/test_new.py": ""})

        self.assertIn(f", {commit[:12]} with changes\n", self.ciapp("run", code=0).out)

    def test_one_document_is_on_stdout_and_all_else_on_stderr(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN, "kept.txt": ""})
        junit = self.home / "junit.xml"

        said = self.ciapp("run", "--json", "--junit", str(junit), code=1)

        document = json.loads(said.out)
        self.assertEqual(("failed", {"passed": 2, "failed": 1}), (document["status"], document["counts"]))
        self.assertEqual(self.sandbox == WEAK, document["sandbox"] == "limits")
        self.assertIn("FAILED (failures=1)", said.err)
        self.assertEqual("3", ElementTree.parse(junit).getroot().get("tests"))

    def test_an_interrupt_prints_the_report_so_far_and_leaves_no_process(self) -> None:
        mark = f"98{os.getpid()}{int(time.time() * 1000) % 100000}"
        self.write({"tests/test_app.py": SLEEPER.replace("MARK", mark)})
        process = subprocess.Popen(
            [*COMMAND, "run", "--json"],
            cwd=self.project,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.assertTrue(wait_until(lambda: bool(processes_with(mark))))
            # As a terminal does on Ctrl-C: to every process of the group.
            os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()

        document = json.loads(out)
        self.assertEqual((1, "cancelled"), (process.returncode, document["status"]))
        self.assertEqual(["passed", "not-run", "not-run"], [test["outcome"] for test in document["tests"]])
        self.assertEqual([], processes_with(mark))


@needs_bubblewrap
class TestRunInBubblewrap(RunFacts):
    sandbox = "auto"


class TestRunUnderLimits(RunFacts):
    sandbox = WEAK


@unittest.skipUnless(os.geteuid() == 0, "nobody but root is root")
class TestRoot(Desk):
    sandbox = "off"

    def test_nothing_is_tested_as_root_unless_a_setting_says_so(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN, "kept.txt": ""})
        self.home.chmod(0o700)
        said = self.ciapp("run", code=3)
        self.assertRegex(said.err, r"^.*tests would be root on this host, .*; install bubblewrap, .*\n$")
        self.environ["CIAPP_SANDBOX"] = WEAK
        self.assertIn("the tests were root on this host", self.ciapp("run", code=1).out)


del RunFacts


class TestSelecting(Desk):
    def test_names_select_and_nothing_that_has_the_name_is_no_pass(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN, "kept.txt": ""})

        self.assertEqual({"test_green": "passed"}, self.outcomes("-k", "green"))
        self.assertEqual({"test_green", "test_red"}, set(self.outcomes("-k", "green", "-k", "*red")))
        said = self.ciapp("run", "-k", "blue", code=1)
        self.assertIn("NO TESTS RAN: no test has 'blue' in its name; run all of them\n", said.out)

    def test_what_failed_runs_again_until_it_passes(self) -> None:
        self.write(
            {"tests/test_app.py": RED_AND_GREEN, "kept.txt": "", "tests/test_x.py": "import nothing_such"}
        )
        self.assertEqual(4, len(self.outcomes("--failed")))  # nothing is known yet
        self.assertEqual({"test_red": "failed", "test_x": "load-error"}, self.outcomes("--failed"))

        self.write(
            {
                "tests/test_x.py": "import unittest\nclass TestX(unittest.TestCase):\n"
                "    def test_green(self): pass\n    def test_later(self): pass\n"
            }
        )
        self.assertEqual(
            {"test_red": "failed", "test_later": "passed", "test_green": "passed"},
            self.outcomes("--failed"),
        )
        self.write({"tests/test_app.py": RED_AND_GREEN.replace("(1, 2)", "(1, 1)")})
        self.assertEqual({"test_red": "passed"}, self.outcomes("--failed"))
        said = self.ciapp("run", "--failed", code=0)
        self.assertIn("Nothing failed when it last ran, so all tests run.\n", said.out)
        self.assertIn("\nRan 5 tests in", said.out)

    def test_it_runs_until_it_fails(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN, "kept.txt": ""})

        said = self.ciapp("run", "-k", "green", "--until-fail", "3", code=0)
        self.assertEqual(2, said.out.count(" of at most 3 passed in "))

        said = self.ciapp("run", "-k", "red", "--until-fail", "3", code=1)
        self.assertNotIn("of at most 3", said.out)


ONLY_UNDER = """\
import sys, unittest
class TestApp(unittest.TestCase):
    def test_any(self): pass
    def test_old(self): self.assertLess(sys.version_info[:2], ({0}))
    def test_new(self): self.assertGreater(sys.version_info[:2], ({0}))
"""


class TestPythons(Desk):
    """A project that names our own Python, another that is on this machine, and one that is not."""

    def setUp(self) -> None:
        super().setUp()
        found = [one for one in find_pythons() if minor_version(one.version) != OWN]
        if not found:
            need("another Python", f"this machine has none but {OWN}")
        self.other = minor_version(found[-1].version)
        (self.home / "bin").mkdir()
        (self.home / "bin" / f"python{self.other}").symlink_to(found[-1].path.resolve())
        self.environ["PATH"] = f"{self.home / 'bin'}:{self.environ['PATH']}"
        self.write({"tests/test_app.py": ONLY_UNDER.format(OWN.replace(".", ", "))})
        self.name(OWN, self.other)

    def name(self, *versions: str) -> None:
        self.write({".ciapp.toml": f"python = {json.dumps(versions)}"})

    def test_one_runs_and_the_last_line_names_the_others(self) -> None:
        said = self.ciapp("run", "-k", "any", code=0)
        self.assertTrue(
            said.out.endswith(f"\nThe project names Python {self.other} too; `--python all` runs each.\n")
        )
        self.name(OWN)
        self.assertTrue(self.ciapp("run", "-k", "any", code=0).out.endswith("\nOK\n"))

    def test_all_run_one_after_another_and_the_worst_is_the_verdict(self) -> None:
        said = self.ciapp("run", "--python", "all", code=1)
        self.assertRegex(said.out, rf"(?s)Environment: Python {OWN}\..*Environment: Python {self.other}\.")
        self.assertTrue(said.out.endswith(f"\nPython {OWN} failed; Python {self.other} failed\n"), said.out)

        junit = self.home / "junit.xml"
        words = ("--python", "all", "-k", "any", "-k", "new", "--json", "--junit", str(junit))
        document = json.loads(self.ciapp("run", *words, code=1).out)
        self.assertEqual("failed", document["status"])
        statuses = {OWN: "failed", self.other: "passed"}
        self.assertEqual(
            {f"python{version}": status for version, status in statuses.items()},
            {run["environment"]: run["status"] for run in document["runs"]},
        )
        self.assertEqual(2, len(ElementTree.parse(junit).getroot().findall("testsuite")))

    def test_what_failed_under_any_is_run_again_under_all(self) -> None:
        self.ciapp("run", "--python", "all", code=1)

        document = json.loads(self.ciapp("run", "--python", "all", "--failed", "--json", code=1).out)

        ran = [[test["id"].rpartition(".")[2] for test in run["tests"]] for run in document["runs"]]
        self.assertEqual([["test_new", "test_old"]] * 2, ran)

    def test_all_are_repeated_together_until_one_fails(self) -> None:
        said = self.ciapp("run", "--python", "all", "-k", "any", "--until-fail", "2", code=0)
        self.assertEqual(1, said.out.count("Run 1 of at most 2 passed in "))
        self.assertEqual(2, said.out.count("Ran 1 test in "))

    def test_one_that_is_not_here_is_no_pass_and_no_failure(self) -> None:
        self.name(OWN, "3.99")
        said = self.ciapp("run", "--python", "all", "-k", "any", code=3)
        self.assertIn("Python 3.99 is neither on the PATH nor among those of pyenv and uv; install", said.out)
        self.assertTrue(said.out.endswith(f"\nPython {OWN} passed; Python 3.99 infra-error\n"), said.out)
        self.ciapp("run", "--python", "all", "-k", "new", code=1)


class TestTelling(Desk):
    def test_lines_come_while_tests_run_and_nothing_of_a_test_acts_on_the_terminal(self) -> None:
        self.write(
            {
                "tests/test_app.py": "import time, unittest\nclass TestApp(unittest.TestCase):\n"
                "    def test_1(self): self.fail('\\x1b]0;owned\\x07')\n"
                "    def test_2(self): time.sleep(60)\n"
            }
        )
        process = subprocess.Popen(
            [*COMMAND, "run", "-v"], cwd=self.project, env=self.environ, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if "..." in line)
            self.assertIsNone(process.poll())
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)

        self.assertEqual(
            "test_1 (test_app.TestApp.test_1) ... FAIL: AssertionError: \\x1b]0;owned\\x07\n", line
        )

    def test_bad_configuration_is_the_trees_own_fault_and_bad_words_are_usage(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN, ".ciapp.toml": "patern = 1"})
        said = self.ciapp("run", code=1)
        self.assertTrue(said.out.startswith(f"Tree:        {self.project}\nSETUP FAILED: "), said.out)
        self.assertIn(".ciapp.toml:1: unknown setting 'patern'", said.out)

        self.assertEqual(2, self.ciapp("run", "--until-fail", "0").code)
        self.assertEqual(2, self.ciapp("run", "nowhere").code)
        self.write({".ciapp.toml": ""})
        said = self.ciapp("run", "--python", "3.7", code=2)
        self.assertRegex(said.err, r"ciapp: .*3\.7.*; install one\n")

    def test_a_state_folder_that_cannot_be_used_is_ours(self) -> None:
        self.write({"tests/test_app.py": RED_AND_GREEN})
        self.environ["CIAPP_STATE_DIR"] = str(self.project / "tests" / "test_app.py")

        said = self.ciapp("run", code=3)

        self.assertRegex(said.err, r"\Aciapp: .* cannot be used: Not a directory; check state_dir\n\Z")

    def test_the_environment_of_the_tree_is_made_as_for_a_commit(self) -> None:
        self.write(
            {
                "src/own.py": "VALUE = 3\n",
                ".ciapp.toml": '[env]\nPYTHONPATH = "{checkout}/src"\nOWN = "value"\n',
                "tests/test_app.py": "import os, unittest, own\nclass TestApp(unittest.TestCase):\n"
                "    def test_1(self): self.assertEqual((3, 'value', '1'), "
                "(own.VALUE, os.environ['OWN'], os.environ['CIAPP']))\n",
            }
        )

        self.ciapp("run", code=0)


if __name__ == "__main__":
    unittest.main()
