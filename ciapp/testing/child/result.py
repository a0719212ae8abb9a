"""What unittest tells about each test, turned into one outcome when the test stops.

In:  the calls that a TestResult receives: several for one test, in an order that is unittest's own affair.
Out: events: start, subtest, stop, fixture.

The hard idea: no single call decides. Every call leaves a trace on the running test, and the outcome is the
gravest trace at stopTest; a test that left none has not passed.
"""

from __future__ import annotations

import sys
import unittest
from _thread import get_ident
from functools import partial
from os import _exit
from time import monotonic
from unittest.runner import TextTestResult, _WritelnDecorator
from unittest.suite import _ErrorHolder  # type: ignore[attr-defined]
from unittest.util import strclass

from .announced import Fixture
from .channel import Channel, quote
from .exceptions import cut, describe, fixture_in, headline, load_problem, test_in, text_of
from .listing import Manifest, is_failed_load, name_of
from .traces import (
    ERRORED,
    EXPECTED,
    FAILED,
    OUTCOMES,
    PASSED,
    SKIPPED,
    UNEXPECTED,
    UNLOADED,
    Running,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any

__unittest = True

_str_of: Any = unittest.TestCase.__str__

REASON_CAP = 2_000  #: characters of a skip's reason
SUBTESTS_SHOWN = 1000  #: per test; the rest is counted


class Result(TextTestResult):
    """The child's TestResult. It keeps unittest's own lists as well, which some tests read."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """One that tests make by `type(result)(…)` is of the class behind this one, and tells nobody."""
        if args and isinstance(args[0], Channel):
            return super().__new__(cls)
        return cls.__mro__[cls.__mro__.index(Result) + 1](*args, **options)

    def __init__(self, channel: Channel, manifest: Manifest, is_plain: bool) -> None:
        super().__init__(_WritelnDecorator(sys.stderr), True, 0)
        self.join(channel, manifest, is_plain)

    def join(self, channel: Channel, manifest: Manifest, is_plain: bool) -> None:
        """Tell the parent, from now on, of the tests in the manifest."""
        self.takes_turns = False  #: whether the class whose tests run now has a run() of its own
        self._previousTestClass = None
        self._moduleSetUpFailed = False
        self._channel = channel
        self._manifest = manifest
        self._is_plain = is_plain  #: whether no suite is of the tests' own making
        self._running: dict[int, Running] = {}
        self._stopped = (0, 0)  #: identity and index of the last test that stopped
        self._fixtures = 0
        self._fixture: Fixture | None = None
        self._told: BaseException | None = None
        self._broken: tuple[BaseException, Fixture] | None = None  #: the innermost suite that it came out of
        self._thread = get_ident()

    def startTest(self, test: Any) -> None:  # noqa: N802
        self.testsRun += 1
        if self.buffer:  # which only tests can have asked for
            self._setupStdout()  # type: ignore[attr-defined]
        running = self._running[id(test)] = Running(self._index_of(test))
        self._channel.mark(str(running.index))
        self._channel.emit("start", f',"test":{running.index}')
        running.started = monotonic()

    def stopTest(self, test: Any) -> None:  # noqa: N802
        ended = monotonic()
        if self.buffer:
            self._restoreStdout()  # type: ignore[attr-defined]
        running = self._running.pop(id(test), None)
        if running is None:
            return  # a skip that had no start
        if self._channel.is_copy():
            # Left alone, a fork that returns from its test would run the rest of the suite beside us.
            self._channel.emit_stray()
            _exit(1)
        error = sys.exc_info()
        if error[1] is not None and error[1] is not running.context:
            running.leave(ERRORED, *describe(error))  # KeyboardInterrupt, on its way out of the suite
            self._told = error[1]
        elif not running.trace:
            running.leave(ERRORED, "the test stopped without an outcome")
        # No marker here: the next test's, fixture's or the run's own ends what belongs to this one.
        self._stop(running, ended - running.started)
        self._stopped = (id(test), running.index)

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        self._leave(test, PASSED)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        traceback = self._format(super().addError, self.errors, test, err)
        if isinstance(test, _ErrorHolder):
            self._emit_fixture("fixture-failed", *_phase_and_scope(test), headline(err), traceback)
        elif is_failed_load(test):
            self._leave(test, UNLOADED, load_problem(err), traceback)
        else:
            self._leave(test, ERRORED, headline(err), traceback)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        traceback = self._format(super().addFailure, self.failures, test, err)
        self._leave(test, FAILED, headline(err), traceback)

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        traceback = self._format(super().addExpectedFailure, self.expectedFailures, test, err)
        self._leave(test, EXPECTED, headline(err), traceback)

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._leave(test, UNEXPECTED, "passed, though it is marked as an expected failure")

    def addSkip(self, test: Any, reason: Any) -> None:  # noqa: N802
        super().addSkip(test, reason)
        message = text_of(reason)[:REASON_CAP]
        if isinstance(test, _ErrorHolder):
            self._emit_fixture("fixture-skipped", *_phase_and_scope(test), message)
        elif hasattr(test, "_subDescription"):
            self._subtest(test.test_case, test, SKIPPED, message)
        else:
            self._leave(test, SKIPPED, message)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        if err is None:
            self._subtest(test, subtest, PASSED)
            return
        failed = issubclass(err[0], test.failureException)
        add = partial(super().addSubTest, test)
        traceback = self._format(add, self.failures if failed else self.errors, subtest, err)
        self._subtest(test, subtest, FAILED if failed else ERRORED, headline(err), traceback)

    def addDuration(self, test: Any, elapsed: Any) -> None:  # noqa: N802
        # unittest keeps these for a summary that nobody prints here; the test's own __str__ may fail there.
        if type(test).__str__ is not _str_of:
            str(test)

    def fixture(self, phase: str, scope: str, speaks: bool, holds: bool = True) -> Fixture:
        """To be entered around a class or module fixture."""
        return Fixture(self, phase, scope, speaks, holds)

    def own_suite(self, suite: Any) -> Fixture:
        """To be entered around the run() of a suite of the tests' own class."""
        return Fixture(self, "run", strclass(type(suite)), True, False, suite)

    def is_idle(self) -> bool:
        """Whether what runs is a suite's own code, and no test, no fixture, no thread and no fork of it."""
        is_free = not self._running and (self._fixture is None or not self._fixture.holds)
        return is_free and get_ident() == self._thread and not self._channel.is_copy()

    def announce(self, fixture: Fixture) -> None:
        """A fixture of the tests' own is about to run."""
        self._fixture, fixture.around = fixture, self._fixture
        self._tell(fixture)

    def withdraw(self, fixture: Fixture) -> None:
        """The fixture has run."""
        self._fixture = fixture.around
        self._channel.mark("!" if fixture.failed else "-")
        if not fixture.holds:
            self.suite_over()  # for it need not tell us of the tests that come next

    def _tell(self, fixture: Fixture) -> None:
        fixture.serial = self._fixtures
        self._fixtures += 1
        self._channel.mark(f"f{fixture.serial}")
        tests = None if fixture.suite is None else self._manifest.waiting_under(fixture.suite)
        self._emit_fixture("fixture", fixture.phase, fixture.scope, serial=fixture.serial, tests=tests)

    def suite_broken(self, fixture: Fixture, error: BaseException) -> None:
        """Something comes out of a suite of the tests' own class, which may have come out of a test."""
        if self._broken is None or self._broken[0] is not error:
            self._broken = (error, fixture)

    def fixture_failed(self, phase: str, scope: str, error: Any, tests: list[int] | None = None) -> None:
        """A fixture raised what unittest does not catch."""
        self._told = error[1]
        self._emit_fixture("fixture-failed", phase, scope, *describe(error), tests=tests)

    def turn(self, test: Any) -> None:
        """A test is about to be called whose run() may do anything before it starts and after it stopped."""
        index = self._manifest.find(test)
        if index is not None:
            self._channel.emit("turn", f',"test":{index}')

    def suite_over(self) -> None:
        """A suite has run; the one around it may do anything now."""
        around = self._fixture
        if around is not None and around.suite is not None and self._manifest.waiting_under(around.suite):
            self._tell(around)
        elif not self._is_plain:
            self._channel.emit("suite")

    def interrupted(self, error: Any) -> None:
        """Something came out of unittest's loop that it does not catch."""
        for running in list(self._running.values()):
            running.leave(ERRORED, *describe(error))
            self._stop(running, monotonic() - running.started)
            self._told = error[1]
        self._running.clear()
        self._channel.mark("-")
        if error[1] is self._told:
            return
        test = test_in(error[2], unittest.TestCase)
        index = None if test is None else self._manifest.find(test)
        if index is not None:
            running = Running(index)
            running.leave(ERRORED, *describe(error))
            self._stop(running, 0.0)
        elif test is not None and self._stopped[0] == id(test):
            message, traceback = describe(error)
            fields = f',"test":{self._stopped[1]},"message":{quote(message)},"traceback":{quote(traceback)}'
            self._channel.emit("broken", fields)
        elif self._broken is not None and self._broken[0] is error[1]:
            broken = self._broken[1]
            tests = self._manifest.waiting_under(broken.suite)
            self.fixture_failed(broken.phase, broken.scope, error, tests)
        else:
            self.fixture_failed(fixture_in(error[2]), "", error)

    def _index_of(self, test: Any) -> int:
        index = self._manifest.find(test)
        if index is None:
            index = self._manifest.add_late(test)
            self._channel.emit("late", f',"id":{quote(self._manifest.ids[index])}')
        return index

    def _find_running(self, test: Any) -> Running | None:
        running = self._running.get(id(test))
        if running is None and len(self._running) == 1:
            # A wrapper was started, and the test inside it speaks for itself.
            [only] = self._running.values()
            if self._manifest.ids[only.index] == name_of(test):
                return only
        return running

    def _leave(self, test: Any, trace: int, message: str = "", traceback: str = "") -> None:
        running = self._find_running(test)
        if running is not None:
            running.leave(trace, message, traceback)
        elif not self._channel.is_copy():
            # Told without a start: skips in CPython 3.12.1, stand-ins that some suites make.
            running = Running(self._index_of(test))
            running.leave(trace, message, traceback)
            self._stop(running, 0.0)

    def _subtest(self, test: Any, subtest: Any, trace: int, message: str = "", traceback: str = "") -> None:
        running = self._find_running(test)
        if running is None:
            return
        if trace != PASSED:
            running.leave(trace, message)
        if running.subtests == SUBTESTS_SHOWN:
            running.more += 1
            return
        running.subtests += 1
        try:
            parameters = cut(str(subtest._subDescription()))
        except Exception:
            parameters = "(<its parameters cannot be shown>)"
        self._channel.emit(
            "subtest",
            f',"test":{running.index},"parameters":{quote(parameters)},"outcome":"{OUTCOMES[trace]}"'
            f',"message":{quote(message)},"traceback":{quote(traceback)}',
        )

    def _stop(self, running: Running, duration: float) -> None:
        fields = f',"test":{running.index},"outcome":"{OUTCOMES[running.trace]}","duration":{duration:.6f}'
        message = running.messages[running.trace]
        if message:
            fields += f',"message":{quote(message)}'
        if running.tracebacks:
            fields += f',"traceback":{quote(cut(chr(10).join(running.tracebacks)))}'
        if running.more:
            fields += f',"more":{running.more}'
        self._channel.emit("stop", fields)
        self._manifest.end(running.index)

    def _emit_fixture(
        self,
        kind: str,
        phase: str,
        scope: str,
        message: str = "",
        traceback: str = "",
        serial: int | None = None,
        tests: list[int] | None = None,
    ) -> None:
        if self._fixture is not None and kind == "fixture-failed":
            self._fixture.failed = True
        if tests is None:
            tests = self._manifest.waiting_in(scope) if phase in ("setUpClass", "setUpModule") else []
        if kind == "fixture-failed":
            self._manifest.give_up(tests)
        fields = f',"phase":{quote(phase[:100])},"scope":{quote(scope[:1000])}'
        fields += f',"tests":[{",".join(map(str, tests))}]'
        if serial is not None:
            fields += f',"serial":{serial}'
        if message or traceback:
            fields += f',"message":{quote(message)},"traceback":{quote(traceback)}'
        self._channel.emit(kind, fields)

    def _format(self, add: Any, texts: Any, test: Any, error: Any) -> str:
        """Let unittest format and keep the traceback; text of our own where that is not possible."""
        known = len(texts)
        try:
            add(test, error)
            text = cut(texts[-1][1])
        except Exception:
            text = f"{headline(error)}\n"
            if texts is self.expectedFailures:  # nothing good comes of what ends a plain run
                self._leave(test, ERRORED, headline(sys.exc_info()))
        del texts[known:]
        texts.append((test, text))
        return text


def _phase_and_scope(holder: Any) -> tuple[str, str]:
    phase, _, scope = holder.description.partition(" (")
    return phase, scope[:-1]
