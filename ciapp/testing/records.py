"""What is known of a test, of a child, and of a child's end, while an attempt goes on.

These are the journal's working state (`ciapp.testing.journal`), which alone changes them; the report is made
of them at the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ciapp.results.report import Outcome, Subtest
from ciapp.testing import events
from ciapp.testing.child.listing import is_within
from ciapp.testing.output import Scope

Key = tuple[str, int]  #: id and ordinal


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tests of a suite are wanted."""

    only: frozenset[Key] | None = None  #: None: all of them
    scopes: tuple[str, ...] = ()  #: modules and classes whose tests are wanted besides

    def includes(self, key: Key) -> bool:
        """Whether a test is wanted."""
        return self.only is None or key in self.only or is_within(key[0], self.scopes)


@dataclass(slots=True)
class Record:
    """One test, as far as it is known."""

    key: Key
    outcome: Outcome | None = None  #: None until it has one
    default: tuple[Outcome, str] | None = (
        None  #: outcome and message that a fixture gave to a test that never ran
    )
    duration_s: float | None = None
    message: str = ""
    traceback: str = ""
    subtests: list[Subtest] = field(default_factory=list)
    more_subtests: int = 0
    scope: Scope | None = None  #: whose output is its own

    @property
    def is_settled(self) -> bool:
        """Whether a further child need not run it."""
        return self.outcome is not None or self.default is not None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child that never said its end record came to its end."""

    outcome: Outcome  #: of what was open: crashed, timed-out; not-run when the run was cancelled
    sentence: str  #: "the process was ended by SIGSEGV"
    dump: str = ""  #: stacks of its threads, where there is such a thing


@dataclass(slots=True)
class Child:
    """What one child has said so far."""

    nonce: bytes
    keys: list[Key] = field(default_factory=list)  #: by its own index
    open: dict[int, None] = field(default_factory=dict)  #: indexes of tests that run, the oldest first
    fixture: events.Fixture | None = None  #: that runs
    last: int = -1  #: index of the test that what runs between tests and fixtures belongs to; -1: none
    loading: str = ""  #: the module that discovery imports
    lines: int = 0  #: numbered lines expected to have come
    has_started: bool = False
    is_listed: bool = False
    is_whole: bool = True  #: whether its list has all tests, as far as is known
    found_anew: int = 0  #: listed tests that earlier children had not listed
    has_ended: bool = False
    is_good: bool = True  #: by unittest's own account, once it has ended
    is_explained: bool = False  #: whether it has said itself why it ends
    is_over: bool = False  #: whether it is being killed
    threads: list[str] = field(default_factory=list)
    partial: bytearray = field(default_factory=bytearray)  #: the beginning of a line
    skipping: bool = False  #: in the middle of a line that is too long
    counts: Counter[str] = field(default_factory=Counter)  #: tests per id
    unselected: int = 0  #: characters of ids that are listed and not to be run, and so not in the report
