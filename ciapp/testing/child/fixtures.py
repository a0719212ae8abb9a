"""Suites that say which class or module fixture they are about to run.

In:  unittest's loop over a suite, which calls these methods before each test.
Out: announcements to the result; and a fixture that wants to exit fails alone, as one that raises does.

The hard idea: unittest catches Exception around a fixture; SystemExit and KeyboardInterrupt end its loop.
They are caught here, and unittest's own marks of a failed fixture are set in its place.
"""

from __future__ import annotations

import sys
import unittest
from unittest import case
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


class Suite(unittest.TestSuite):
    """What discovery puts tests into; plain with every result but the child's own."""

    def run(self, result: Any, debug: bool = False) -> Any:
        _plain.run(self, result, debug)
        if isinstance(result, Result):
            result.suite_over()
        return result

    def _handleClassSetUp(self, test: Any, result: Any) -> None:  # noqa: N802
        cls = test.__class__
        if not isinstance(result, Result):
            _plain._handleClassSetUp(self, test, result)
        elif result._previousTestClass is not cls:
            with result.fixture("setUpClass", strclass(cls), _overrides(cls, "setUpClass")) as fixture:
                _plain._handleClassSetUp(self, test, result)
            if fixture.interrupted:
                cls._classSetupFailed = True
            result.takes_turns = cls.run is not _run or cls.__call__ is not _call
        if isinstance(result, Result) and result.takes_turns:
            result.turn(test)

    def _tearDownPreviousClass(self, test: Any, result: Any) -> None:  # noqa: N802
        cls = getattr(result, "_previousTestClass", None)
        if not isinstance(result, Result):
            _plain._tearDownPreviousClass(self, test, result)
        elif cls is not None and cls is not test.__class__:
            speaks = _overrides(cls, "tearDownClass") or bool(getattr(cls, "_class_cleanups", None))
            with result.fixture("tearDownClass", strclass(cls), speaks):
                _plain._tearDownPreviousClass(self, test, result)

    def _handleModuleFixture(self, test: Any, result: Any) -> None:  # noqa: N802
        module = test.__class__.__module__
        if not isinstance(result, Result):
            _plain._handleModuleFixture(self, test, result)
        elif _module_of(result) != module:
            self._handleModuleTearDown(result)
            # The previous module is torn down: unittest's method has only the set-up left to do.
            previous, result._previousTestClass = result._previousTestClass, None
            speaks = hasattr(sys.modules.get(module), "setUpModule")
            with result.fixture("setUpModule", module, speaks) as fixture:
                _plain._handleModuleFixture(self, test, result)
            result._previousTestClass = previous
            if fixture.interrupted:
                result._moduleSetUpFailed = True

    def _handleModuleTearDown(self, result: Any) -> None:  # noqa: N802
        if not isinstance(result, Result):
            _plain._handleModuleTearDown(self, result)
        elif _module_of(result) is not None and not result._moduleSetUpFailed:
            module = _module_of(result)
            speaks = hasattr(sys.modules.get(module), "tearDownModule")
            with result.fixture("tearDownModule", module, speaks or bool(_module_cleanups)):
                _plain._handleModuleTearDown(self, result)


def adopt(suite: Any) -> bool:
    """Let the plain suites that a load_tests has put together announce their fixtures too.

    False when there are suites of other classes among them.
    """
    if type(suite) is _plain:
        suite.__class__ = Suite
    inner = [adopt(test) for test in suite._tests if is_suite(test)] if has_list(suite) else []
    return type(suite) is Suite and all(inner)


_module_cleanups: Any = getattr(case, "_module_cleanups", ())


def _module_of(result: Any) -> Any:
    """The module whose fixture is in force; None before the first."""
    return getattr(result._previousTestClass, "__module__", None)


def _overrides(cls: Any, name: str) -> bool:
    method = getattr(cls, name, None)
    plain: Any = getattr(unittest.TestCase, name)
    return method is not None and getattr(method, "__func__", method) is not plain.__func__
