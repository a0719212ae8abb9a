"""A working tree's tests, run at somebody's desk as a worker runs those of a commit.

In:  a working tree, a slot of the desk's own, and which of the tests are wanted.
Out: findings, whose texts name files as the user does: from the tree's root.

The tests run in a copy, so that nothing they do can harm the tree, and nothing that is not part of it (what
git ignores, byte-code of yesterday) can make them pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ciapp.errors import ProjectError, StaleAttemptError, UsageError
from ciapp.results.report import Findings, FixtureResult, TestResult
from ciapp.settings import RepositorySettings, Settings
from ciapp.testing.environment import Interpreter, default_python
from ciapp.testing.interpreters import find_interpreters, minor_version
from ciapp.testing.project import load_project
from ciapp.testing.records import Key
from ciapp.testing.replica import copy_tree
from ciapp.testing.slot import Slot, take_slot
from ciapp.testing.suite import Suite, hash_seed_of, prepare_suite, unprepared, with_terms
from ciapp.testing.supervisor import Progress, run_suite
from ciapp.testing.tree import WorkingTree

NO_TREE = "0" * 40
Named = TypeVar("Named", bound=msgspec.Struct)
TEXTS = ("message", "traceback", "stdout", "stderr", "reason", "output")  #: fields that may name files
PARTS = ("tests", "fixtures", "subtests")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run of a tree."""

    python: str = ""  #: a version, "3.13"; empty: the first that the project names, else our own
    names: tuple[str, ...] = ()  #: as unittest's -k
    only: tuple[Key, ...] | None = None  #: see SuitePlan
    scopes: tuple[str, ...] = ()


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to know how it goes."""

    on_ready: Callable[[Interpreter, Suite], None]
    on_progress: Callable[[Progress], None]
    on_settled: Callable[[TestResult | FixtureResult], None]
    should_stop: Callable[[], bool]


def take_desk_slot(settings: Settings) -> Slot:
    """A slot that no worker takes, with an identity of its own. Raises CheckoutError."""
    return take_slot(settings.state_path / "desk")


def test_tree(tree: WorkingTree, slot: Slot, settings: Settings, order: Order, watch: Watch) -> Findings:
    """Run the tree's tests as they are now. Raises CiError when it fails for reasons that are not theirs."""
    try:
        replica = copy_tree(tree, slot, setting=settings.sandbox)
        project = load_project(replica.checkout.path, {}, settings.limits)
        interpreter = pick_interpreter(order.python, project.python, settings)
        with prepare_suite(
            slot,
            replica.checkout,
            settings,
            repository=RepositorySettings(),
            tree=tree.head.tree if tree.head and tree.is_clean else replica.content,
            interpreter=interpreter,
            should_stop=watch.should_stop,
        ) as suite:
            watch.on_ready(interpreter, suite)
            # While somebody edits, the order of sets should not change with each letter.
            seed = hash_seed_of(tree.head.tree if tree.head else NO_TREE)
            plan = msgspec.structs.replace(
                suite.plan, names=order.names, only=order.only, scopes=order.scopes, hash_seed=seed
            )
            return run_watched(msgspec.structs.replace(suite, plan=plan), watch)
    except (ProjectError, StaleAttemptError) as error:
        return unprepared(error, slot, settings)


def run_watched(suite: Suite, watch: Watch) -> Findings:
    """Run a suite for somebody who looks on; files are named from its root."""
    root = suite.sandbox.checkout
    findings = run_suite(
        suite.plan,
        suite.sandbox,
        on_progress=watch.on_progress,
        on_settled=lambda found: watch.on_settled(name_from_root(found, root)),
        should_stop=watch.should_stop,
    )
    return name_from_root(with_terms(findings, suite), root)


test_tree.__test__ = False  # type: ignore[attr-defined]  # its name is the domain's, not a test's


def pick_interpreter(asked: str, named: list[str], settings: Settings) -> Interpreter:
    """A Python of this machine: of the version asked for, else the first that the project names.

    Raises UsageError when there is none.
    """
    wanted = [asked] if asked else named
    if not wanted:
        return default_python()
    found = find_interpreters(msgspec.structs.replace(settings, pythons=wanted))
    for version in wanted:
        if interpreter := found.interpreters.get(minor_version(version)):
            return interpreter
    said = "; ".join(found.complaints) or f"Python {', '.join(wanted)} is not on this machine"
    raise UsageError(f"{said}; install one")


def name_from_root(found: Named, root: Path) -> Named:
    """The same, with files below a folder named from there where a line of them is told.

    That is where Python says `File "PATH", line 3` or `PATH:3`; in a message, or a line of source, a path may
    be what matters.
    """
    marker = f"{root}/"
    place = re.compile(rf'(?<=File "){re.escape(marker)}|(?<![\w./-]){re.escape(marker)}(?=[^\s:"]+:\d+)')
    changes: dict[str, Any] = {}
    for field in TEXTS:
        text = getattr(found, field, "")
        if marker in text:
            changes[field] = place.sub("", text)
    for field in PARTS:
        if parts := getattr(found, field, ()):
            changes[field] = tuple(name_from_root(part, root) for part in parts)
    return msgspec.structs.replace(found, **changes) if changes else found
