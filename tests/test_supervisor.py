"""The supervisor: what a run survives, under every interpreter of this machine, and how it is cut short."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from ciapp.results.report import Findings, Outcome, Status
from ciapp.settings import Limits
from ciapp.testing.environment import default_python
from ciapp.testing.sandbox import SandboxSetting
from ciapp.testing.supervisor import CHILD, Progress, compile_child
from tests.support.plain_sandbox import PlainProcess, PlainSandbox
from tests.support.samples import QUICK, SAMPLES, add_sample_tests, find_pythons, run_project, run_sample
from tests.support.sandboxes import WEAK, Place
from tests.support.services import need
from tests.test_child import OUTCOMES

SURVIVED = (
    "exits_zero_mid_test",
    "exits_zero_after_a_failure",
    "exits_zero_between_tests",
    "exits_at_import",
    "crashes",
    "crashes_in_fixtures",
    "builds_its_own_suite",
    "has_suites_of_its_own",
    "runs_its_tests_its_own_way",
    "leaves_stubborn_tasks",
    "crashes_often",
    "exits_while_making_tests",
    "hangs",
    "hangs_at_import",
    "outlasts_the_run",
    "runs_a_runner_inside",
    "forks_into_the_suite",
    "floods_its_output",
    "writes_odd_bytes",
    "closes_its_output",
    "closes_the_channel",
    "leaves_a_thread",
    "fails_behind_a_thread",
    "leaves_processes",
    "crashes_at_exit",
    "hangs_at_exit",
    "exits_late_and_badly",
    "changes_the_world",
    "deletes_its_checkout",
    "tells_its_surroundings",
)

add_sample_tests(globals(), SURVIVED)

PYTHON = Path(sys.executable)
OUTLIVED = "processes that the tests started outlived them, and were killed"


class TestSamples(unittest.TestCase):
    def test_samples_are_run_under_more_than_one_python(self) -> None:
        if len(find_pythons()) < 2:
            need("a second Python", "nothing is known of the child under other versions")

    def test_every_sample_is_run(self) -> None:
        samples = {file.parent.name for file in SAMPLES.glob("*/expected.toml")}

        self.assertEqual(samples, {*OUTCOMES, *SURVIVED})


class Project(unittest.TestCase):
    """A folder with a test module, and the sandbox that it runs in."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.sandbox = RecordingSandbox(self.folder)
        (self.folder / "tests").mkdir()

    def write_tests(self, body: str) -> None:
        lines = ["import os, sys, time, unittest", "class TestApp(unittest.TestCase):"]
        lines += [f"    {line}" for line in body.strip().splitlines()]
        (self.folder / "tests" / "test_app.py").write_text("\n".join(lines) + "\n")

    def run_tests(self, **changes: Any) -> Findings:
        return run_project(self.folder, changes.pop("python", PYTHON), sandbox=self.sandbox, **changes)

    def outcomes(self, findings: Findings) -> dict[str, str]:
        return {test.id.rpartition(".")[2]: test.outcome.value for test in findings.tests}


class RecordingSandbox(PlainSandbox):
    """Keeps the processes that it started, to be asked afterwards."""

    def __init__(self, checkout: Path) -> None:
        super().__init__(checkout)
        self.processes: list[PlainProcess] = []

    def start(self, *args: Any, **options: Any) -> PlainProcess:
        self.processes.append(super().start(*args, **options))
        return self.processes[-1]


class TestCuttingShort(Project):
    def test_a_stopped_run_is_cancelled_and_its_processes_are_gone(self) -> None:
        self.write_tests("def test_1(self): pass\ndef test_2(self): time.sleep(100)\ndef test_3(self): pass")
        told: list[Progress] = []

        findings = self.run_tests(
            on_progress=told.append, should_stop=lambda: bool(told) and told[-1].done == 1
        )

        self.assertEqual(Status.CANCELLED, findings.status)
        self.assertEqual(
            {"test_1": "passed", "test_2": "not-run", "test_3": "not-run"}, self.outcomes(findings)
        )
        self.assertEqual([], self.sandbox.processes[0].descendants())
        self.assertLess(findings.duration_s, 10)

    def test_an_error_of_ours_leaves_no_process_behind(self) -> None:
        self.write_tests("def test_1(self): time.sleep(100)")

        def lost() -> bool:
            raise RuntimeError("the lease is lost")

        with self.assertRaisesRegex(RuntimeError, "the lease is lost"):
            self.run_tests(should_stop=lost)
        self.assertEqual([], self.sandbox.processes[0].descendants())

    def test_a_broken_limit_ends_the_open_test_and_the_rest_runs(self) -> None:
        self.write_tests(
            "def test_1(self): open('open', 'w').close(); time.sleep(100)\ndef test_2(self): pass"
        )
        self.sandbox = BreachingSandbox(self.folder)

        findings = self.run_tests()

        self.assertEqual({"test_1": "crashed", "test_2": "passed"}, self.outcomes(findings))
        self.assertEqual("the tests used more than 4 MiB of memory", findings.tests[0].message)

    def test_the_run_limit_holds_for_all_children_together(self) -> None:
        self.write_tests("\n".join(f"def test_{n}(self): time.sleep(0.3); os._exit(0)" for n in range(9)))

        findings = self.run_tests(limits=Limits(test_s=5, run_s=1))

        self.assertEqual(Status.TIMED_OUT, findings.status)
        self.assertIn("not-run", self.outcomes(findings).values())


class BreachingSandbox(RecordingSandbox):
    """Its first process breaks a limit once the first test is open."""

    def start(self, *args: Any, **options: Any) -> PlainProcess:
        process = super().start(*args, **options)
        if len(self.processes) == 1:
            process.breach = self.look  # type: ignore[method-assign]
        return process

    def look(self) -> str:
        return "the tests used more than 4 MiB of memory" if (self.checkout / "open").exists() else ""


class TestPlan(Project):
    def test_only_the_selected_tests_run_under_their_own_ordinals(self) -> None:
        for name in ("test_base", "test_imports_it"):
            shutil.copy(SAMPLES / "shares_ids" / "tests" / f"{name}.py", self.folder / "tests")
        selected = ("test_base.TestBase.test_second_run_fails", 1)

        findings = self.run_tests(only=(selected,), known_tests=(("gone", 0),))

        self.assertEqual([selected], [(test.id, test.ordinal) for test in findings.tests])
        self.assertEqual((Status.PASSED, ()), (findings.status, findings.warnings))

    def test_the_environment_reaches_the_tests(self) -> None:
        self.write_tests("def test_1(self): print(os.environ['OWN'], os.environ['PYTHONHASHSEED'])")

        findings = self.run_tests(environment={"OWN": "value"}, hash_seed=42)

        self.assertEqual("value 42\n", findings.tests[0].stdout)

    def test_an_interpreter_that_does_not_start_is_a_setup_problem(self) -> None:
        self.write_tests("def test_1(self): pass")

        findings = self.run_tests(environment={"PYTHONHOME": "/nonexistent"})

        self.assertEqual(Status.SETUP_FAILED, findings.status)
        self.assertIn("did not start: the process exited with status 1", findings.reason)
        self.assertIn("encodings", findings.output)

    def test_a_start_directory_that_is_no_package_is_a_setup_problem(self) -> None:
        self.write_tests("def test_1(self): pass")

        findings = self.run_tests(top=".")

        self.assertEqual(Status.SETUP_FAILED, findings.status)
        self.assertIn("Start directory is not importable", findings.reason)

    def test_a_module_that_breaks_discovery_is_a_load_error_and_the_rest_runs(self) -> None:
        self.write_tests("def test_1(self): pass")
        (self.folder / "tests" / "test_odd.py").write_text(
            "import unittest\nclass TestOdd(unittest.TestCase):\n"
            "    def __init__(self, name): raise ValueError('not like this')\n    def test_2(self): pass\n"
        )

        findings = self.run_tests()

        self.assertEqual({"test_1": "passed", "test_odd": "load-error"}, self.outcomes(findings))
        self.assertIn("ValueError: not like this", findings.tests[0].traceback)

    def test_no_traceback_shows_frames_of_ours(self) -> None:
        self.write_tests("def test_1(self): pass")
        (self.folder / "tests" / "test_odd.py").write_text("1 / 0\n")
        (self.folder / "tests" / "test_list.py").write_text("def load_tests(*_):\n    return []\n")

        findings = self.run_tests()

        tracebacks = {test.id: test.traceback for test in findings.tests}
        self.assertIn("ZeroDivisionError: division by zero", tracebacks["test_odd"])
        self.assertEqual("TypeError", tracebacks["test_list"].partition(":")[0])
        self.assertNotIn(str(CHILD), "".join(tracebacks.values()))


class TestLongTexts(Project):
    def test_ids_of_any_length_stay_distinct_and_lose_no_event(self) -> None:
        self.write_tests(
            """
def id(self): return "x" * 30_000 + self._testMethodName
def test_thread(self):
    import threading
    threading.Thread(target=time.sleep, args=(0.5,), name="n" * 5_000_000).start()
for number in range(300):
    exec(f"def test_{number}(self): pass")
def test_of_megabytes(self): pass
class TestHuge(unittest.TestCase):
    def id(self): return "\\u20ac" * 5_000_000
    def test_1(self): pass
"""
        )
        text = (self.folder / "tests" / "test_app.py").read_text()
        (self.folder / "tests" / "test_app.py").write_text(f"{text}TestHuge = TestApp.TestHuge\n")

        findings = self.run_tests()

        self.assertEqual((Status.PASSED, "", ()), (findings.status, findings.reason, findings.warnings))
        ids = {test.id for test in findings.tests}
        self.assertEqual((303, 303), (len(findings.tests), len(ids)))
        self.assertEqual({4_000}, set(map(len, ids)))


class TestProgress(Project):
    def test_progress_counts_up_to_all_tests(self) -> None:
        self.write_tests("def test_1(self): time.sleep(0.5)\ndef test_2(self): self.fail()")
        told: list[Progress] = []

        self.run_tests(on_progress=told.append)

        self.assertEqual(Progress(known=2, done=2, failed=1), told[-1])
        self.assertEqual(sorted(told, key=lambda progress: progress.done), told)
        self.assertIn(Progress(known=2, done=0, failed=0), told)


class TestDuration(Project):
    def test_a_test_takes_its_time_on_a_clock_that_tests_cannot_set(self) -> None:
        self.write_tests(
            "def test_1(self):\n    sleep = time.sleep\n    time.monotonic = None\n    sleep(0.2)"
        )

        [test] = self.run_tests().tests

        self.assertEqual(Outcome.PASSED, test.outcome)
        assert test.duration_s is not None
        self.assertTrue(0.2 <= test.duration_s < 5, test.duration_s)


class TestLikeUnittest(unittest.TestCase):
    def test_tests_see_what_they_would_see_under_unittest(self) -> None:
        for python in find_pythons():
            with self.subTest(python=python.version), tempfile.TemporaryDirectory() as folder:
                project = Path(folder, "project")
                shutil.copytree(SAMPLES / "tells_its_surroundings", project)
                findings = run_project(project, python.path, top=".")
                # From a foreground shell, so to speak: this suite may itself run where SIGINT is ignored.
                default_sigint = ["env", "--default-signal=INT"]
                plain = subprocess.run(
                    [
                        *default_sigint,
                        python.path,
                        "-m",
                        "unittest",
                        "discover",
                        "-s",
                        "tests",
                        "-p",
                        "test*.py",
                        "-t",
                        ".",
                    ],
                    cwd=project,
                    env={"PATH": "/usr/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "1"},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=True,
                )

                self.assertEqual(json.loads(plain.stdout), json.loads(findings.tests[0].stdout))

    def test_a_background_shell_that_ignores_sigint_does_not_make_tests_ignore_it(self) -> None:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            findings = run_sample("tells_its_surroundings", PYTHON, top=".")
        finally:
            signal.signal(signal.SIGINT, previous)

        self.assertEqual(
            "<built-in function default_int_handler>", json.loads(findings.tests[0].stdout)["SIGINT"]
        )


class TestInSandboxes(unittest.TestCase):
    SETTINGS: tuple[SandboxSetting, ...] = (WEAK, "auto")

    def run_at(self, setting: SandboxSetting, test_app: str, limits: Limits = QUICK) -> Findings:
        place = Place(self, setting)
        sandbox = place.open(place.commit({"tests/test_app.py": test_app}))
        python = default_python()
        findings = run_project(
            sandbox.checkout, python.python, sandbox=sandbox, readable=python.readable, limits=limits
        )
        self.assertEqual(sandbox.level, findings.sandbox)
        return findings

    def test_crashes_and_hangs_are_told_apart_at_both_levels(self) -> None:
        test_app = "import unittest\nclass TestApp(unittest.TestCase):\n"
        test_app += "    def test_1(self): import os; print('hello'); os.abort()\n"
        test_app += "    def test_2(self): import time; time.sleep(100)\n"
        test_app += "    def test_3(self): pass\n"
        for setting in self.SETTINGS:
            with self.subTest(setting=setting):
                findings = self.run_at(setting, test_app, Limits(test_s=0.5))

                said = [(test.outcome.value, test.message) for test in findings.tests]
                self.assertEqual(("crashed", "the process was ended by SIGABRT"), said[0])
                self.assertEqual(("timed-out", "took longer than the limit of 0.5 s"), said[1])
                self.assertEqual(("passed", ""), said[2])
                self.assertIn("Fatal Python error: Aborted", findings.tests[0].traceback)
                self.assertIn("in test_2", findings.tests[1].traceback)
                self.assertEqual("hello\n", findings.tests[0].stdout)

    def test_processes_that_outlive_the_tests_are_told_of_at_both_levels(self) -> None:
        sample = (SAMPLES / "leaves_processes" / "tests" / "test_app.py").read_text("utf-8")
        for setting in self.SETTINGS:
            with self.subTest(setting=setting):
                findings = self.run_at(setting, sample)

                self.assertEqual((Status.PASSED, (OUTLIVED,)), (findings.status, findings.warnings))

    def test_helpers_that_end_with_the_tests_are_nothing_to_tell_of(self) -> None:
        test_app = """
import multiprocessing, subprocess, sys, time, unittest
from multiprocessing.shared_memory import SharedMemory
class TestApp(unittest.TestCase):
    def test_1(self):
        memory = SharedMemory(create=True, size=10)  # starts a process that ends when it loses touch
        memory.close()
        memory.unlink()
        multiprocessing.get_context("spawn").Process(target=time.sleep, args=[100], daemon=True).start()
        TestApp.helper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        TestApp.helper.stdin.write(b"x")
        TestApp.helper.stdin.flush()
        TestApp.helper.stdout.read(1)
"""
        for setting in self.SETTINGS:
            with self.subTest(setting=setting):
                findings = self.run_at(setting, test_app)

                self.assertEqual((Status.PASSED, ()), (findings.status, findings.warnings))


class TestChangingIds(Project):
    def test_ids_that_differ_per_process_end_the_restarts_and_are_named(self) -> None:
        self.write_tests(
            """
def id(self): return f"test_app.{self._testMethodName}-{os.getpid()}"
def test_1(self): pass
def test_2(self): os._exit(0)
def test_3(self): pass
"""
        )

        findings = self.run_tests()

        self.assertEqual((Status.FAILED, 2, 6), (findings.status, findings.children, len(findings.tests)))
        self.assertRegex(
            findings.reason,
            r"^1 test of one process not found by the next: test_app\.test_3-\d+; ids must be the same in",
        )


class TestExitStatus(Project):
    def test_a_process_that_exits_oddly_after_its_last_test_does_not_pass(self) -> None:
        self.write_tests(
            "def test_1(self): import atexit; atexit.register(os._exit, int(os.environ['STATUS']))"
        )
        for status in (1, 3, 120):
            with self.subTest(status=status):
                findings = self.run_tests(environment={"STATUS": str(status)})

                self.assertEqual((Status.FAILED, ()), (findings.status, findings.warnings))
                self.assertEqual(
                    f"after the last test the process exited with status {status}, though none had failed",
                    findings.reason,
                )

    def test_an_exit_that_goes_on_shows_its_stacks(self) -> None:
        self.write_tests("def test_1(self): import atexit; atexit.register(time.sleep, 100)")

        [exit_] = self.run_tests(limits=Limits(test_s=0.1)).fixtures

        self.assertIn("(most recent call first)", exit_.traceback)

    def test_an_exit_that_outlasts_the_run_is_the_run_that_took_too_long(self) -> None:
        self.write_tests("def test_1(self): import atexit; atexit.register(time.sleep, 100)")

        findings = self.run_tests(limits=Limits(run_s=3))

        self.assertEqual(Status.TIMED_OUT, findings.status)
        self.assertEqual("the tests took longer than the run's limit of 3 s", findings.reason)
        self.assertEqual({"test_1": "passed"}, self.outcomes(findings))

    def test_a_run_is_stopped_while_its_process_exits(self) -> None:
        self.write_tests("def test_1(self): import atexit; atexit.register(time.sleep, 100)")
        told: list[Progress] = []

        findings = self.run_tests(
            on_progress=told.append, should_stop=lambda: bool(told) and told[-1].done == 1
        )

        self.assertEqual(Status.CANCELLED, findings.status)

    def test_after_a_failure_an_odd_exit_is_but_warned_of(self) -> None:
        self.write_tests("def test_1(self): import atexit; atexit.register(os._exit, 3); self.fail()")

        findings = self.run_tests()

        self.assertEqual((Status.FAILED, ""), (findings.status, findings.reason))
        self.assertEqual(("after the last test the process exited with status 3",), findings.warnings)


class TestByteCode(unittest.TestCase):
    def test_the_child_is_compiled_for_our_own_python(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(
                shutil.copytree(CHILD, Path(folder, "child"), ignore=shutil.ignore_patterns("__pycache__"))
            )

            compile_child(copy)

            self.assertTrue(Path(importlib.util.cache_from_source(str(copy / "program.py"))).exists())


class TestFlood(Project):
    def test_a_flood_is_drained_as_fast_as_it_comes(self) -> None:
        self.write_tests("def test_1(self):\n    for _ in range(2_000): os.write(1, b'x' * 100_000)")
        started = time.monotonic()

        findings = self.run_tests()

        self.assertEqual(Status.PASSED, findings.status)
        self.assertLess(len(findings.tests[0].stdout), 70_000)
        self.assertLess(time.monotonic() - started, 20)

    def test_a_gigabyte_of_output_costs_no_memory_and_changes_no_outcome(self) -> None:
        flood = "[os.write({0}, b'x' * 100_000) for _ in range(5_000)]"
        self.write_tests(
            f"def test_1(self): {flood.format(1)}\n"
            f"def test_2(self): {flood.format(2)}; self.fail()\n"
            "def test_3(self): print('end')"
        )
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here on
        before = self.memory("VmRSS")

        findings = self.run_tests()

        self.assertLess(self.memory("VmHWM") - before, 32 << 20)
        self.assertEqual(
            {"test_1": "passed", "test_2": "failed", "test_3": "passed"}, self.outcomes(findings)
        )
        self.assertEqual("end\n", findings.tests[2].stdout)
        self.assertIn("[499934464 bytes left out]", findings.tests[0].stdout)
        self.assertEqual((f"{2 * 499934464} bytes of output left out",), findings.warnings)

    def memory(self, name: str) -> int:
        """A line of this process's status, in bytes."""
        lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[name].split()[0]) * 1024
