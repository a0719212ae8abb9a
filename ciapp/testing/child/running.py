"""Discovery and the run, as `python -m unittest discover` would do them.

In:  orders and the channel.
Out: whether every test went well.

The hard idea: a KeyboardInterrupt out of a test ends unittest's loop over the suite. The loop keeps its place
in the suite itself (tests that ran are dropped from it) and in the result (the class and module that are set
up), so the same suite can be run again from where it stopped.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import unittest
import warnings
from types import ModuleType

from .channel import Channel, quote
from .exceptions import describe
from .fixtures import guard_suites, is_plain
from .listing import Loader, Manifest, prune, unloaded_files
from .result import Result
from .runner import NO_TESTS, RUNNER, adopt, is_genuine, run_program, sum_up

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any

__unittest = True

THREAD_NAME_SHOWN = 100  #: characters


def run(orders: dict[str, Any], channel: Channel) -> bool:
    """Run what is ordered; False as well when discovery failed."""
    _look_like_unittest(orders)
    start, base = os.path.abspath(orders["start"]), os.getcwd()
    loader = Loader(channel, orders["skip"])
    if orders["names"]:
        loader.testNamePatterns = [name if "*" in name else f"*{name}*" for name in orders["names"]]
    warns = None if sys.warnoptions else "default"  # tests that are imported may change them
    try:
        suite = loader.discover(orders["start"], orders["pattern"], orders["top"])
    except BaseException:
        error = sys.exc_info()
        message, traceback = describe(error)
        if loader.loading:
            channel.emit("discovery-failed", f',"message":{quote(message)},"traceback":{quote(traceback)}')
        else:
            channel.emit("unusable", f',"message":{quote(message)}')
        return False
    manifest = Manifest(suite, orders["done"], orders["only"], orders["scopes"])
    manifest.emit(channel, unloaded_files(start, base, orders["pattern"], loader.matched))
    prune(suite, manifest.is_waiting)
    is_good = (_run_suite if is_genuine() else _follow)(suite, channel, manifest, warns)
    channel.mark("-")
    names = ",".join(quote(name) for name in _threads_left())
    channel.emit("end", f',"threads":[{names}],"good":{"true" if is_good else "false"}')
    return is_good


def _look_like_unittest(orders: dict[str, Any]) -> None:
    sys.argv[:] = [os.path.basename(sys.executable) + " -m unittest", "discover"]
    sys.argv += ["-s", orders["start"], "-p", orders["pattern"]]
    if orders["top"] is not None:
        sys.argv += ["-t", orders["top"]]
    for name in orders["names"]:
        sys.argv += ["-k", name]
    main = sys.modules["__main__"]
    main.__file__ = os.path.join(os.path.dirname(unittest.__file__), "__main__.py")
    main.__package__ = "unittest"
    spec: Any = type(unittest.__spec__)
    # multiprocessing tells spawned processes by this name not to run the main module again.
    main.__spec__ = spec("unittest.__main__", None, origin=main.__file__)
    # Background shells and nohup start their children with SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _run_suite(suite: Any, channel: Channel, manifest: Manifest, warns: Any) -> bool:
    """Run it as unittest's own runner does; whether all went well. `warns` is its filter of warnings."""
    result = Result(channel, manifest, is_plain(suite))
    unittest.registerResult(result)
    guard_suites(result)
    left = manifest.left()
    with warnings.catch_warnings():
        if warns is not None:
            warnings.simplefilter(warns)
            if sys.version_info < (3, 12):
                # Older unittests show the warnings about their own aliases once per module.
                warnings.filterwarnings(
                    "module", category=DeprecationWarning, message=r"Please use assert\w+ instead."
                )
        started = time.perf_counter()
        result.startTestRun()
        _run_to_its_end(suite, result, manifest)
        result.stopTestRun()
    channel.mark("-")
    try:
        sum_up(result, channel, started, has_run=manifest.left() < left)
    except BaseException:
        result.fixture_failed("run", RUNNER, sys.exc_info())
    return result.wasSuccessful()


def _follow(suite: Any, channel: Channel, manifest: Manifest, warns: Any) -> bool:
    """Run it through whatever the tests have put in the place of unittest's own runner and result."""
    result = object.__new__(Result)  # unittest's __init__ may be what was replaced
    result.join(channel, manifest, False)

    def run_whole(whole: Any, theirs: Any) -> None:
        nonlocal result
        adopt(theirs)
        result = theirs
        result.join(channel, manifest, is_plain(whole))
        guard_suites(result)
        _run_to_its_end(whole, result, manifest)
        channel.mark("-")

    status, error = run_program(suite, warns, run_whole)
    if error is not None:
        channel.mark("-")
        result.fixture_failed("run", RUNNER, error, manifest.waiting_under(suite))
    return not status or (status == NO_TESTS and not manifest.ids)


def _run_to_its_end(suite: Any, result: Result, manifest: Manifest) -> None:
    """Run all its tests, whatever comes out of one."""
    while True:
        waiting = manifest.listed_waiting()
        try:
            suite(result)
            break
        except BaseException:
            result.interrupted(sys.exc_info())
        if manifest.listed_waiting() in (0, waiting):
            break  # there is nothing left, or no telling where to go on
        prune(suite, manifest.is_waiting)
        setattr(
            result, "_testRunEntered", False
        )  # so that the last class and module are torn down at the end


def _threads_left() -> list[str]:
    threading = sys.modules.get("threading")
    if not isinstance(threading, ModuleType):
        return []
    try:
        ours = threading.main_thread()
        left = [thread for thread in threading.enumerate() if thread is not ours and not thread.daemon]
        return [str(thread.name)[:THREAD_NAME_SHOWN] for thread in left[:20]]
    except Exception:  # replaced by the tests
        return []
