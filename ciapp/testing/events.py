"""The events of the child's protocol, as values (`ciapp.testing.child` has their specification).

In:  one line of the event channel.
Out: the event; None for a line that is no event of this child.

What the child says is a claim by untrusted code: whatever does not fit is refused, never raised.
"""

from __future__ import annotations

import msgspec

from ciapp.results.report import Outcome

#: What a child may say of a test.
CLAIMS = frozenset(Outcome) - {Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.NOT_RUN}


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """Anything that the child says; numbered without a gap."""

    n: int


class Hello(Event, frozen=True, kw_only=True, tag="hello"):
    """The interpreter has started."""

    python: str


class Unusable(Event, frozen=True, kw_only=True, tag="unusable"):
    """Discovery cannot start."""

    message: str


class Loading(Event, frozen=True, kw_only=True, tag="loading"):
    """A module is about to be imported by discovery."""

    module: str


class DiscoveryFailed(Event, frozen=True, kw_only=True, tag="discovery-failed"):
    """Discovery broke over the module being loaded."""

    message: str
    traceback: str


class Manifest(Event, frozen=True, kw_only=True, tag="manifest"):
    """A piece of the list of tests."""

    first: int
    ids: list[str]


class Listed(Event, frozen=True, kw_only=True, tag="listed"):
    """The list of tests is complete."""

    tests: int
    whole: bool  #: whether no suite makes its tests only when it runs
    unloaded: list[str]
    more: int


class Late(Event, frozen=True, kw_only=True, tag="late"):
    """A test that came up after the list was complete."""

    id: str


class Turn(Event, frozen=True, kw_only=True, tag="turn"):
    """A test's own run() is about to be called, of which its start and stop are part."""

    test: int


class Suite(Event, frozen=True, kw_only=True, tag="suite"):
    """Suites of the tests' own are at work."""


class Start(Event, frozen=True, kw_only=True, tag="start"):
    """A test starts."""

    test: int


class SubtestEnd(Event, frozen=True, kw_only=True, tag="subtest"):
    """A subtest of a running test has ended."""

    test: int
    parameters: str
    outcome: Outcome
    message: str
    traceback: str


class Stop(Event, frozen=True, kw_only=True, tag="stop"):
    """A test has stopped."""

    test: int
    outcome: Outcome
    duration: float
    message: str = ""
    traceback: str = ""
    more: int = 0


class Broken(Event, frozen=True, kw_only=True, tag="broken"):
    """Something came out of the run() of a test that had stopped."""

    test: int
    message: str
    traceback: str


class Fixture(Event, frozen=True, kw_only=True, tag="fixture"):
    """A class or module fixture is about to run."""

    serial: int
    phase: str
    scope: str
    tests: list[int]


class FixtureFailed(Event, frozen=True, kw_only=True, tag="fixture-failed"):
    """A class or module fixture failed."""

    phase: str
    scope: str
    tests: list[int]
    message: str
    traceback: str


class FixtureSkipped(Event, frozen=True, kw_only=True, tag="fixture-skipped"):
    """A class or module fixture asked for its tests to be skipped."""

    phase: str
    scope: str
    tests: list[int]
    message: str = ""


class Stray(Event, frozen=True, kw_only=True, tag="stray"):
    """A forked copy of the child came back into the suite."""

    pid: int


class End(Event, frozen=True, kw_only=True, tag="end"):
    """Everything has run."""

    threads: list[str]
    good: bool  #: by unittest's own account, which tests may write to


AnyEvent = (
    Hello
    | Unusable
    | Loading
    | DiscoveryFailed
    | Manifest
    | Listed
    | Late
    | Turn
    | Suite
    | Start
    | SubtestEnd
    | Stop
    | Broken
    | Fixture
    | FixtureFailed
    | FixtureSkipped
    | Stray
    | End
)

_decoder = msgspec.json.Decoder(AnyEvent)


def parse_event(line: bytes | bytearray, nonce: bytes) -> AnyEvent | None:
    """The event that a line carries behind its nonce; what another program wrote before it is passed over."""
    at = line.find(nonce + b" ")
    if at < 0:
        return None
    try:
        event: AnyEvent = _decoder.decode(line[at + len(nonce) + 1 :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return event
