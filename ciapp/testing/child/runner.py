"""unittest's own program, runner and result, where the tests have changed them.

In:  these classes as they are before anything of the tests is imported, and as they are then.
Out: whether they are the same; where not, a run that goes through them as `python -m unittest` does.

The hard idea: they may do anything, a skip that counts as a failure or a run that fails for what it left
behind, and say it to nobody but the result that they have made. So that very object is made ours: when it
first meets a suite, its class becomes one that has the child's Result in front of its own, and each call
reaches both.
"""

from __future__ import annotations

import sys
import time
import unittest
from unittest import runner
from unittest.suite import BaseTestSuite, _ErrorHolder  # type: ignore[attr-defined]
from unittest.util import strclass

from .channel import Channel
from .result import Result
from .traces import Running

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any, Callable

__unittest = True

_program: Any = unittest.TestProgram
_result: Any = runner.TextTestResult
_modules: Any = (runner, sys.modules[_program.__module__])
_classes: Any = (runner._WritelnDecorator, _program, runner.TextTestRunner, _result, unittest.TestResult)

RUNNER = "unittest.TextTestRunner"  #: as whose run() its failures are told
NO_TESTS = 5  #: the status by which newer unittests say so

#: What the child's Result does not pass on, for speed.
KEPT = ("startTest", "stopTest", "addSuccess", "addSubTest", "addDuration")


def _look() -> Any:
    looks = [dict(vars(thing)) for thing in (*_modules, *_classes)]
    for names in looks:
        names.pop("__warningregistry__", None)  # comes with the first warning
    return looks


_genuine = _look()


def is_genuine() -> bool:
    """Whether unittest's program, runner and results are still its own."""
    return bool(_look() == _genuine)


class Following(Result):
    """A Result that passes on everything to the class behind it."""

    def startTest(self, test: Any) -> None:  # noqa: N802
        known = self.testsRun
        super().startTest(test)
        self.testsRun = known
        super(Result, self).startTest(test)

    def stopTest(self, test: Any) -> None:  # noqa: N802
        super(Result, self).stopTest(test)  # first: it may have something to add
        super().stopTest(test)

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        super(Result, self).addSuccess(test)
        super().addSuccess(test)

    def addSkip(self, test: Any, reason: Any) -> None:  # noqa: N802
        is_started = self._find_running(test) or isinstance(test, _ErrorHolder)
        if is_started or hasattr(test, "_subDescription"):
            super().addSkip(test, reason)
            return
        # CPython 3.12.1 starts no test that it skips: all that is told of it here belongs together.
        running = self._running[id(test)] = Running(self._index_of(test))
        super().addSkip(test, reason)
        del self._running[id(test)]
        self._stop(running, 0.0)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        if err is None:
            super(Result, self).addSubTest(test, subtest, err)
        super().addSubTest(test, subtest, err)

    def addDuration(self, test: Any, elapsed: Any) -> None:  # noqa: N802
        super(Result, self).addDuration(test, elapsed)  # type: ignore[misc]  # of 3.12


def adopt(result: Any) -> None:
    """Make a result of the tests' own class one of ours.

    Raises TypeError for one that cannot be.
    """
    theirs: Any = type(result)
    if not isinstance(result, unittest.TestResult):
        raise TypeError(f"a {strclass(theirs)} is no unittest.TestResult, so its tests cannot be followed")
    named = {name: getattr(theirs, name) for name in ("__module__", "__qualname__")}
    result.__class__ = type(theirs)(theirs.__name__, (Following, theirs), named)
    # No dots in the tests' output, nor where a plain TestResult knows of none.
    vars(result).update(dots=False, showAll=getattr(result, "showAll", False))


def run_program(suite: Any, warns: Any, run_whole: Callable[[Any, Any], None]) -> tuple[Any, Any]:
    """Let unittest's program run a suite; its exit status, and what came out of it instead.

    The first suite that is called with a result goes to `run_whole`, with that result.
    """
    program = _program.__new__(_program)
    settings = {"module": None, "defaultTest": None, "testLoader": unittest.defaultTestLoader, "test": suite}
    settings.update(testRunner=None, progName=sys.argv[0], exit=True, verbosity=1, failfast=False)
    settings.update(catchbreak=False, buffer=False, tb_locals=False, durations=None)
    vars(program).update(settings, warnings=warns)
    call_suite: Any = BaseTestSuite.__call__

    def call(self: Any, *args: Any, **options: Any) -> Any:
        if len(args) != 1 or options:
            return call_suite(self, *args, **options)
        setattr(BaseTestSuite, "__call__", call_suite)
        run_whole(self, args[0])
        return args[0]

    setattr(BaseTestSuite, "__call__", call)
    try:
        program.runTests()
    except SystemExit as error:
        return error.code, None
    except BaseException:
        return 1, sys.exc_info()
    finally:
        if BaseTestSuite.__call__ is call:
            setattr(BaseTestSuite, "__call__", call_suite)
    return 0, None


def sum_up(result: Result, channel: Channel, started: float, has_run: bool) -> None:
    """What unittest's own runner does once a suite has run, but for the summary that it prints.

    Raises what ends a plain run there: for a stream that the tests closed, a clock that they broke. `started`
    is that clock's time when the run began, `has_run` whether any test has an outcome.
    """
    "%.3f" % (time.perf_counter() - started)
    if result.wasSuccessful():
        result.printErrors()  # of which there are none
    if not _are_kept_genuine():
        raise TypeError("methods of unittest's results were replaced while tests ran, and were not followed")
    # A line goes where the tests would have unittest write, for it may not arrive; none to the parent.
    result.stream.write("" if channel.is_own_stderr(result.stream.stream) else "\n")
    result.stream.flush()
    # All of them are asked for, as a plain run ends where the tests took one off the result.
    summed = len(result.expectedFailures), len(result.unexpectedSuccesses), len(result.skipped)
    if has_run and sys.version_info >= (3, 12) and not result.testsRun and not summed[2]:
        raise RuntimeError("no test was started, so unittest says that none was run")


def _are_kept_genuine() -> bool:
    """Whether the methods are unittest's own that a Result keeps to itself."""
    now, then = (
        [methods.get(name) for methods in looks[-2:] for name in KEPT] for looks in (_look(), _genuine)
    )
    return now == then
