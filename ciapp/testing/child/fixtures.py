"""Suites that say which class or module fixture they are about to run.

In:  unittest's loop over a suite, which calls these methods before each test.
Out: announcements to the result; and a fixture that wants to exit fails alone, as one that raises does.

The hard idea: unittest catches Exception around a fixture; SystemExit and KeyboardInterrupt end its loop.
They are caught here, and unittest's own marks of a failed fixture are set in its place.

The methods are TestSuite's own, changed in place: suites of the tests' own classes inherit them, those that
are made while others run have them too, and no suite is of another class than its maker gave it. With a
result that is not the child's, as such suites may put in its place, they only tell; what the fixture does
then goes the way it would have gone. The run() of a suite of another class is announced too, for it need
not tell of a test or fixture at all.
"""

from __future__ import annotations

import sys
import unittest
from unittest import case
from unittest.suite import BaseTestSuite
from unittest.util import strclass

from .listing import has_list, is_suite
from .result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any

__unittest = True

_plain: Any = unittest.TestSuite
_run: Any = unittest.TestCase.run
_call: Any = unittest.TestCase.__call__


def guard_suites(ours: Result) -> None:
    """Let every suite announce its fixtures to the child's result from now on."""
    # As they are now: tests that were imported may have replaced unittest's own.
    call_suite: Any = BaseTestSuite.__call__
    run_suite: Any = _plain.run
    set_up_this_class: Any = _plain._handleClassSetUp
    tear_down_last_class: Any = _plain._tearDownPreviousClass
    set_up_this_module: Any = _plain._handleModuleFixture
    tear_down_last_module: Any = _plain._handleModuleTearDown

    def call(self: Any, *args: Any, **options: Any) -> Any:
        if type(self) is _plain or args[:1] != (ours,) or not ours.is_idle():
            return call_suite(self, *args, **options)
        with ours.own_suite(self):
            return call_suite(self, *args, **options)

    def run(self: Any, result: Any, debug: bool = False) -> Any:
        returned = run_suite(self, result, debug)
        if result is ours or ours.is_idle():
            ours.suite_over()
        return returned

    def set_up_class(self: Any, test: Any, result: Any) -> None:
        cls = test.__class__
        is_new = _class_of(result) is not cls
        if is_new and (result is ours or ours.is_idle()):
            with ours.fixture(
                "setUpClass", strclass(cls), _overrides(cls, "setUpClass"), holds=result is ours
            ) as fixture:
                set_up_this_class(self, test, result)
            if fixture.interrupted:
                cls._classSetupFailed = True
        elif is_new:
            set_up_this_class(self, test, result)
        if result is ours:
            if is_new:
                # What a suite holds need not be a test: anything that is called with a result will do.
                ours.takes_turns = getattr(cls, "run", None) is not _run or cls.__call__ is not _call
            if ours.takes_turns:
                ours.turn(test)

    def tear_down_class(self: Any, test: Any, result: Any) -> None:
        cls = _class_of(result)
        if result is ours and (cls is None or cls is test.__class__):
            return
        if cls is test.__class__ or cls is None or not (result is ours or ours.is_idle()):
            tear_down_last_class(self, test, result)
            return
        speaks = _overrides(cls, "tearDownClass") or bool(getattr(cls, "_class_cleanups", None))
        with ours.fixture("tearDownClass", strclass(cls), speaks, holds=result is ours):
            tear_down_last_class(self, test, result)

    def set_up_module(self: Any, test: Any, result: Any) -> None:
        module = test.__class__.__module__
        is_new = _module_of(result) != module
        if result is ours and not is_new:
            return
        if not is_new or not (result is ours or ours.is_idle()):
            set_up_this_module(self, test, result)
            return
        speaks = hasattr(sys.modules.get(module), "setUpModule")
        if result is not ours:
            # It tears down the previous module first, which is told as well.
            with ours.fixture("setUpModule", module, speaks, holds=False):
                set_up_this_module(self, test, result)
            return
        self._handleModuleTearDown(ours)
        # The previous module is torn down: unittest's method has only the set-up left to do.
        previous, ours._previousTestClass = ours._previousTestClass, None
        with ours.fixture("setUpModule", module, speaks) as fixture:
            set_up_this_module(self, test, ours)
        ours._previousTestClass = previous
        if fixture.interrupted:
            ours._moduleSetUpFailed = True

    def tear_down_module(self: Any, result: Any) -> None:
        module = _module_of(result)
        is_due = module is not None and not getattr(result, "_moduleSetUpFailed", False)
        if not is_due or not (result is ours or ours.is_idle()):
            tear_down_last_module(self, result)
            return
        speaks = hasattr(sys.modules.get(module), "tearDownModule") or bool(_module_cleanups)
        with ours.fixture("tearDownModule", module, speaks, holds=result is ours):
            tear_down_last_module(self, result)

    setattr(BaseTestSuite, "__call__", call)
    for name, method in (
        ("run", run),
        ("_handleClassSetUp", set_up_class),
        ("_tearDownPreviousClass", tear_down_class),
        ("_handleModuleFixture", set_up_module),
        ("_handleModuleTearDown", tear_down_module),
    ):
        setattr(_plain, name, method)


def is_plain(suite: Any) -> bool:
    """Whether none of its suites is of a class of the tests' own."""
    inner = (is_plain(test) for test in suite._tests if is_suite(test)) if has_list(suite) else ()
    return type(suite) is _plain and all(inner)


_module_cleanups: Any = getattr(case, "_module_cleanups", ())


def _module_of(result: Any) -> Any:
    """The module whose fixture is in force; None before the first."""
    return getattr(_class_of(result), "__module__", None)


def _class_of(result: Any) -> Any:
    """The class whose fixture is in force; None before the first."""
    return getattr(result, "_previousTestClass", None)


def _overrides(cls: Any, name: str) -> bool:
    method = getattr(cls, name, None)
    plain: Any = getattr(unittest.TestCase, name)
    return method is not None and getattr(method, "__func__", method) is not plain.__func__
