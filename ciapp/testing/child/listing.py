"""What discovery found: the manifest, and the files it passed over.

In:  unittest's suite of tests.
Out: ids in order, and a suite from which tests can be dropped before it runs.

The hard idea: tests are told apart by the object, not by the id, which may belong to a hundred of them. The
objects are held until they have run, as unittest's suite holds them; a copy that a suite makes is found by
its id.
"""

from __future__ import annotations

import os
import sys
import unittest
from fnmatch import fnmatch
from types import ModuleType
from unittest.suite import BaseTestSuite
from unittest.util import strclass

from .channel import Channel, clean, quote

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any, Iterator

__unittest = True

_plain: Any = unittest.TestLoader

CHUNK = 200  #: ids per manifest line
LONGEST_CHUNK = 100_000  #: characters of its ids, each of which is up to 12 bytes on the wire
LONGEST_ID = 4_000  #: characters; of a longer one, a digest stands for what is cut off
UNLOADED_SHOWN = 100
ENTRIES_LOOKED_AT = 20_000  #: of the start directory's tree, in search of files that were not loaded


def is_failed_load(test: Any) -> bool:
    """Whether discovery put this test in place of a module it could not load."""
    return type(test).__name__ == "_FailedTest" and type(test).__module__ == "unittest.loader"


def name_of(test: Any) -> str:
    """The test's id; the module's name where the test stands for a module that was not loaded."""
    cls = type(test)
    try:
        if cls.__module__ == "unittest.loader" and cls.__name__ in ("_FailedTest", "ModuleSkipped"):
            name = str(test._testMethodName)
        else:
            name = str(test.id())
    except Exception:
        name = strclass(cls)
    return clean(name if len(name) <= LONGEST_ID else _shorten(name))


def _shorten(name: str) -> str:
    import hashlib  # for next to nobody: it would cost every child's start some 3 ms

    digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{name[: LONGEST_ID - 20]}...{digest[:17]}"


def is_within(name: str, scopes: Any) -> bool:
    """Whether a test belongs to one of these modules and classes."""
    return any(name == scope or name.startswith(scope + ".") for scope in scopes)


class Manifest:
    """The tests of this child, by index."""

    def __init__(self, suite: Any, done: Any, only: Any, scopes: Any) -> None:
        self.ids: list[str] = []
        self._is_whole = True  #: whether no suite makes its tests only when it runs
        self._held: dict[int, object] = {}
        self._waiting: dict[int, list[int]] = {}
        self._given_up: set[int] = set()
        self._scopes: dict[str, list[int]] = {}
        self._by_name: dict[str, list[int]] | None = None
        seen: dict[str, int] = {}
        scopes_of: dict[type, tuple[list[int], ...]] = {}
        for test in self._leaves(suite):
            name = name_of(test)
            ordinal = seen.get(name, 0)
            seen[name] = ordinal + 1
            index = len(self.ids)
            self.ids.append(name)
            is_wanted = only is None or (name, ordinal) in only or is_within(name, scopes)
            if is_wanted and (name, ordinal) not in done:
                self._hold(test, index)
                for scope in scopes_of.get(type(test)) or self._scopes_of(type(test), scopes_of):
                    scope.append(index)
        self._listed = len(self.ids)

    def emit(self, channel: Channel, unloaded: list[str]) -> None:
        """Send the list, in lines of a bearable length."""
        first, length = 0, 0
        for index, name in enumerate(self.ids):
            length += len(name)
            if index - first == CHUNK or length > LONGEST_CHUNK:
                self._emit_chunk(channel, first, index)
                first, length = index, len(name)
        self._emit_chunk(channel, first, len(self.ids))
        files = ",".join(map(quote, unloaded[:UNLOADED_SHOWN]))
        more = max(0, len(unloaded) - UNLOADED_SHOWN)
        whole = "true" if self._is_whole else "false"
        fields = f',"tests":{len(self.ids)},"whole":{whole},"unloaded":[{files}],"more":{more}'
        channel.emit("listed", fields)

    def _emit_chunk(self, channel: Channel, first: int, end: int) -> None:
        ids = ",".join(map(quote, self.ids[first:end]))
        if ids:
            channel.emit("manifest", f',"first":{first},"ids":[{ids}]')

    def is_waiting(self, test: Any) -> bool:
        """Whether this very object is listed and has not run."""
        return any(index not in self._given_up for index in self._waiting.get(id(test), ()))

    def listed_waiting(self) -> int:
        """How many of the tests that were listed at first have not run, and may yet."""
        return sum(index < self._listed for index in self._held.keys() - self._given_up)

    def left(self) -> int:
        """How many tests have not run, whether or not they may yet."""
        return len(self._held)

    def give_up(self, indexes: list[int]) -> None:
        """These tests will not run, for their fixture failed."""
        self._given_up.update(indexes)

    def waiting_in(self, scope: str) -> list[int]:
        """Indexes of the tests of a class or module that have not run."""
        return [index for index in self._scopes.get(scope, ()) if index in self._held]

    def waiting_under(self, suite: Any) -> list[int]:
        """Indexes of the tests in a suite that have not run, and may yet."""
        indexes = [index for test in self._leaves(suite) for index in self._waiting.get(id(test), ())]
        return [index for index in indexes if index not in self._given_up]

    def find(self, test: Any) -> int | None:
        """The index of a test that has not run; None when the list lacks it."""
        indexes = self._waiting.get(id(test))
        if indexes:
            return indexes[0]
        if self._by_name is None:
            self._by_name = {}
            for index, name in enumerate(self.ids):
                self._by_name.setdefault(name, []).append(index)
        for index in self._by_name.get(name_of(test), ()):
            if index in self._held:
                return index
        return None

    def add_late(self, test: Any) -> int:
        """List a test that came up only now."""
        index = len(self.ids)
        self.ids.append(name_of(test))
        self._hold(test, index)
        return index

    def end(self, index: int) -> None:
        """Let go of a test that has run."""
        test = self._held.pop(index, None)
        if test is not None:
            indexes = self._waiting[id(test)]
            indexes.remove(index)
            if not indexes:
                del self._waiting[id(test)]

    def _scopes_of(self, cls: type, known: dict[type, tuple[list[int], ...]]) -> tuple[list[int], ...]:
        """The lists of the tests of a class and of its module."""
        known[cls] = tuple(self._scopes.setdefault(name, []) for name in (strclass(cls), cls.__module__))
        return known[cls]

    def _leaves(self, suite: Any) -> Iterator[Any]:
        """Tests in order; not those of suites that make them when asked."""
        if not has_list(suite):
            self._is_whole = False
            return
        for test in suite:
            if is_suite(test):
                yield from self._leaves(test)
            elif test is not None:
                yield test

    def _hold(self, test: Any, index: int) -> None:
        self._held[index] = test
        self._waiting.setdefault(id(test), []).append(index)


def prune(suite: Any, is_waiting: Any) -> None:
    """Drop the tests that need not run, and the suites that have none left; their fixtures go with them."""
    if not has_list(suite):
        return
    kept = []
    for test in suite._tests:
        if test is None:
            continue
        if is_suite(test):
            had_tests = has_list(test) and bool(test._tests)
            prune(test, is_waiting)
            if test._tests or not had_tests:
                kept.append(test)
        elif is_waiting(test):
            kept.append(test)
    suite._tests[:] = kept


def is_suite(test: Any) -> bool:
    """Whether it holds tests, by unittest's own rule."""
    return hasattr(type(test), "__iter__")


def has_list(suite: Any) -> bool:
    """Whether a suite just holds its tests. One that makes them when asked may do so only once."""
    return type(suite).__iter__ is BaseTestSuite.__iter__


def unloaded_files(start: str, base: str, pattern: str, matched: set[str]) -> list[str]:
    """Files under the start directory that match the pattern and that discovery passed over.

    `start` and `base`, to which their paths are relative, are absolute: tests may have changed the working
    directory when they were imported. A package with a load_tests answers for its files itself. Links to
    folders are followed within `base`, to each folder once.
    """
    found = []
    looked_at = 0
    modules = [vars(module) for module in list(sys.modules.values()) if type(module) is ModuleType]
    answered_for = {module.get("__file__") for module in modules} | matched
    own = {module.get("__file__") for module in modules if "load_tests" in module}
    linked: set[str] = set()
    for folder, folders, files in os.walk(start, followlinks=True):
        true_folder = os.path.realpath(folder) if linked else folder
        if os.path.join(true_folder, "__init__.py") in own:
            folders.clear()
            continue
        folders[:] = [name for name in sorted(folders) if name[0] != "." and name != "__pycache__"]
        looked_at += len(files) + len(folders)
        if looked_at > ENTRIES_LOOKED_AT:
            break
        folders[:] = [name for name in folders if _is_to_follow(os.path.join(folder, name), base, linked)]
        for name in sorted(files):
            if name.endswith(".py") and fnmatch(name, pattern):
                path = os.path.join(folder, name)
                if answered_for.isdisjoint((path, os.path.join(true_folder, name))):
                    answered_for.add(os.path.join(true_folder, name))
                    found.append(os.path.relpath(path, base))
    return found


def _is_to_follow(folder: str, base: str, linked: set[str]) -> bool:
    """Whether the walk enters a folder; where it is a link, its target is noted in `linked`."""
    if not os.path.islink(folder):
        return True
    target = os.path.realpath(folder)
    is_inside = target.startswith(os.path.realpath(base) + os.sep)
    is_around = (os.path.realpath(os.path.dirname(folder)) + os.sep).startswith(target + os.sep)
    is_new = target not in linked
    linked.add(target)
    return is_new and is_inside and not is_around


class LostModuleError(ImportError):
    """Stands in for a module that ended an earlier child."""


class _Announced:
    """unittest's method, looked up to import what it named last: so no frame of ours is in tracebacks.

    No property, which would go before a method that the tests replaced on the loader itself.
    """

    def __get__(self, loader: Any, owner: Any) -> Any:
        loader.announce_named()
        return _plain._get_module_from_name.__get__(loader)


class Loader(unittest.TestLoader):
    """unittest's loader, saying which module it is about to import.

    It has no settings of its own: all but these attributes are those of the loader that unittest discovers
    with, where tests that are imported early may set another prefix, order or class of suites for the rest.
    """

    __slots__ = ("_channel", "_name", "_shared", "_skip", "loading", "matched")

    def __init__(self, channel: Channel | None = None, skip: tuple[str, ...] = ()) -> None:
        super().__init__()  # all there is to a loader that the tests make of this class
        self._shared = unittest.defaultTestLoader if channel is not None else None
        if self._shared is not None:
            self.__dict__ = self._shared.__dict__
        self.matched: set[str] = set()
        self.loading = ""  #: the module that discovery is at; empty between two
        self._name = ""
        self._channel = channel
        self._skip = skip

    def discover(self, *args: Any, **options: Any) -> Any:
        suite = super().discover(*args, **options)
        if self._shared is not None and type(self._shared) is not _plain:
            raise TypeError("the class of unittest's default loader was replaced, and cannot be followed")
        return suite

    def loadTestsFromModule(self, module: Any, *args: Any, **options: Any) -> Any:  # noqa: N802
        try:
            suite = _plain.loadTestsFromModule(self, module, *args, **options)
            if not callable(suite):
                # unittest notices it when all modules are loaded, and does not know any more whose it is.
                raise TypeError(f"load_tests returned a {type(suite).__name__}, which is no suite of tests")
        except BaseException:
            if not self.loading:  # it has loaded others, and they went well
                self._announce(module.__name__)
            raise
        self.loading = ""
        return suite

    def _get_name_from_path(self, path: str) -> Any:
        self._name = _plain._get_name_from_path(self, path)
        return self._name

    _get_module_from_name = _Announced()

    def announce_named(self) -> None:
        """What it named last is about to be imported; it is not where it ended an earlier child."""
        self._announce(self._name)
        if self._name in self._skip:
            raise LostModuleError(f"{self._name} ended the interpreter when it was imported before")

    def _announce(self, name: str) -> None:
        self.loading = name
        if self._channel is not None:
            self._channel.emit("loading", f',"module":{quote(name)}')

    def _match_path(self, path: str, full_path: str, pattern: str) -> bool:
        matches: bool = _plain._match_path(self, path, full_path, pattern)
        if matches:
            self.matched.add(full_path)
        return matches
