"""What fails under plain unittest for more than a test's own failure does not pass in the child."""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from ciapp.results.report import Status
from tests.support.samples import find_pythons, run_project

TEST = """
class TestApp(unittest.TestCase):
    def test_one(self):
        {}
"""
RESULT = """
class Result(unittest.{}):
    def {}

unittest.TextTestRunner.resultclass = Result
"""
SKIPPED = TEST.format("self.skipTest('why')")
PASSED = TEST.format("pass")
RUN_IN_ANOTHER = """
    def run(self, result=None):
        other = type(result)(result.stream, True, 0)
        super().run(other)
        assert other.wasSuccessful() and other.testsRun == 1
        return super().run(result)
"""

#: Fact → a test module. Where a fact depends on the version of Python, plain unittest passes under others.
MODULES = {
    "closes stderr": TEST.format("sys.stderr.close()"),
    "closes the descriptor of stderr": TEST.format("os.close(2)"),
    "has a stderr that is full": PASSED + "\nsys.stderr = open('/dev/full', 'w')\n",
    "has a stderr that nobody reads": PASSED
    + "\nours, theirs = os.pipe()\nos.dup2(theirs, 2)\nos.close(theirs)\nos.close(ours)\n",
    "breaks its result's list of skips": PASSED
    + "\n    def run(self, result=None):\n        super().run(result)\n        result.skipped = None\n",
    "is not to be interrupted": TEST.format("self.assertFalse(unittest.signals._results)"),
    "makes a result like its own": PASSED + RUN_IN_ANOTHER,
    "makes a result like its own, of a class of its own": PASSED
    + RUN_IN_ANOTHER
    + RESULT.format("TextTestResult", "addSkip(self, *_):\n        1 / 0"),
    "breaks the clock": TEST.format("time.perf_counter = None"),
    "wants its output where it is, of a result that keeps it": TEST.format(
        "self.assertTrue(sys.stdout.fileno())"
    )
    + "\n    def run(self, result=None):\n        result.buffer = True\n        return super().run(result)\n",
    "warns as if Python had been told how": TEST.format("warnings.warn('why', UserWarning)")
    + "\n    def setUp(self):\n        shown = [one[2] for one in warnings.filters if one[0] == 'default']\n"
    + "        self.assertNotIn(Warning, shown)\n"
    + "\nsys.warnoptions.append('ignore')\n",
    "has no text for itself": PASSED + "\n    def __str__(self):\n        raise ValueError\n",
    "starts no test": PASSED + "\n    def run(self, result=None):\n        result.addSuccess(self)\n",
    "replaces wasSuccessful while running": TEST.format(
        "unittest.TextTestResult.wasSuccessful = lambda self: False"
    ),
    "replaces printErrors while running": TEST.format(
        "unittest.TestResult.printErrors = unittest.TextTestResult.printErrors = lambda self: 1 / 0"
    ),
    "replaces TestResult.addSkip": SKIPPED + "\nunittest.TestResult.addSkip = lambda *_: 1 / 0\n",
    "replaces the class of the loader": PASSED
    + """
class Loader(unittest.TestLoader):
    def loadTestsFromModule(self, *_, **__):
        return unittest.FunctionTestCase(lambda: 1 / 0)

unittest.defaultTestLoader.__class__ = Loader
""",
    "replaces what the runner calls": PASSED + "\nunittest.runner.registerResult = None\n",
    "replaces how the runner writes": PASSED + "\nunittest.runner._WritelnDecorator.writeln = None\n",
    "replaces TestSuite.run": PASSED
    + """
run = unittest.TestSuite.run

def run_and_fail(self, result, debug=False):
    result.errors.append((TestApp("test_one"), "why"))
    return run(self, result, debug)

unittest.TestSuite.run = run_and_fail
""",
    "has a result that is never content": PASSED
    + RESULT.format("TextTestResult", "wasSuccessful(self):\n        return False"),
    "has a result that exits": PASSED
    + RESULT.format("TextTestResult", "printErrors(self):\n        sys.exit(4)"),
    "has a result without a stream": PASSED
    + RESULT.format("TestResult", "addSuccess(self, test):\n        self.addError(test, (None, None, None))"),
    "has a result with slots": SKIPPED
    + RESULT.format("TextTestResult", "addSkip(self, *_):\n        1 / 0\n    __slots__ = ('more',)"),
    "has a result that does not start": PASSED
    + RESULT.format("TextTestResult", "startTest(self, test):\n        1 / 0"),
    "has a result that is none": PASSED
    + "\nunittest.TextTestRunner.resultclass = lambda *_, **__: unittest.mock.MagicMock()\n",
    "has another runner": PASSED
    + """
class Runner(unittest.TextTestRunner):
    def run(self, test):
        super().run(unittest.TestSuite(one for tests in test for suite in tests for one in suite))
        sys.exit("why")

unittest.runner.TextTestRunner = Runner
""",
    "exits in runTests": PASSED + "\nunittest.TestProgram.runTests = lambda self: sys.exit(3)\n",
    "exits when its last object goes": PASSED
    + """
class Handle:
    def __del__(self, leave=os._exit):
        leave(5)

HANDLE = Handle()
""",
}
PLAIN_PASSES = {
    ("makes a result like its own", 99),
    ("makes a result like its own, of a class of its own", 99),
    ("has no text for itself", 11),
    ("starts no test", 11),
}  #: and the last minor that it does under


class TestPlainFailures(unittest.TestCase):
    def test_what_plain_unittest_fails_does_not_pass(self) -> None:
        pythons = find_pythons()
        for python in dict.fromkeys([pythons[0], pythons[-1]]):
            minor = int(python.version.split(".")[1])
            for fact, source in MODULES.items():
                with self.subTest(fact, python=python.version), tempfile.TemporaryDirectory() as folder:
                    may_pass = any(fact == name and minor <= last for name, last in PLAIN_PASSES)
                    module = Path(folder, "tests", "test_app.py")
                    module.parent.mkdir()
                    module.write_text("import os, sys, time, unittest, unittest.mock, warnings\n" + source)

                    self.assertEqual(may_pass, self.run_plainly(python.path, folder) == 0)
                    findings = run_project(Path(folder), python.path)
                    self.assertEqual(may_pass, findings.status is Status.PASSED, findings)

    def test_a_set_up_that_fails_is_all_there_is_to_tell(self) -> None:
        for python in find_pythons()[::5]:
            for failure in ("1 / 0", "sys.exit(1)"):
                with self.subTest(failure, python=python.version), tempfile.TemporaryDirectory() as folder:
                    module = Path(folder, "tests", "test_app.py")
                    module.parent.mkdir()
                    module.write_text(f"import sys, unittest\n\ndef setUpModule():\n    {failure}\n{PASSED}")

                    [fixture] = run_project(Path(folder), python.path).fixtures

                    self.assertEqual("setUpModule", fixture.phase)

    def run_plainly(self, python: Path, folder: str) -> int:
        done = subprocess.run(
            [python, "-m", "unittest", "discover", "-s", "tests"],
            cwd=folder,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        return done.returncode
