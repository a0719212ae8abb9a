"""What the children of one attempt said, folded into one record per test.

In:  the bytes of their event channels, and how each child ended.
Out: the list of tests, what became of each, and what is open right now.

The hard idea: a test is known by id and ordinal, and a child speaks of it by its own index. The first outcome
of a test stays, so a test that crashed one child cannot pass in the next. Nothing a child says raises: what
does not fit is refused and counted, and a run whose lines went missing, or came twice, cannot pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ciapp.results.report import FixtureResult, Outcome, Subtest
from ciapp.testing import events
from ciapp.testing.budget import LONGEST_MESSAGE, ROW_SIZE, TEXT_BUDGET, Budget, clean
from ciapp.testing.events import CLAIMS, AnyEvent, parse_event
from ciapp.testing.fixtures import Fixtures
from ciapp.testing.output import Scope
from ciapp.testing.records import Child, Ending, Key, Record, Selection

LONGEST_LINE = 4 * 1024 * 1024
MOST_TESTS = 200_000
MOST_SUBTESTS = 1_000  #: rows of one test

NOBODY = -1  #: index of no test
BETWEEN = "between"  #: what runs while no test and no fixture is open


class Journal:
    """The attempt's one account of its tests."""

    def __init__(self, selection: Selection = Selection()) -> None:  # noqa: B008  # it is frozen
        self.records: dict[Key, Record] = {}
        self.lost_modules: list[str] = []  #: that ended a child when they were imported
        self.unloaded: list[str] = []
        self.more_unloaded = 0
        self.unexplained: list[str] = []  #: ends of children that no test, fixture or module explains
        self.python = ""
        self.setup_problem = ""
        self.is_listed = False  #: whether a child came through discovery
        self.children = 0
        self.ended = 0  #: children that said their end record
        self.is_good = True  #: by unittest's own account in each of those
        self.refused = 0  #: lines that were not this run's
        self.contradictions = 0  #: lines of this run's that say anew what was said: two speak for one child
        self.lost = 0  #: lines that never came
        self.strays = 0
        self.failed = 0  #: tests with an outcome that is not good
        self.done = 0  #: tests that are settled
        self.is_overfull = False  #: whether there are more tests or texts than a report can hold
        self.news: list[Record | FixtureResult] = []  #: what was settled since somebody took this list
        self._selection = selection
        self._budget = Budget()
        self.fixtures = Fixtures(self._budget)
        self._child = Child(b"")

    @property
    def child(self) -> Child:
        """The child that speaks now."""
        return self._child

    @property
    def current(self) -> tuple[int, str, int] | None:
        """What runs now under the limit of a test; equal as long as it is the same.

        A test, a fixture, or what is between them: the rest of a test's run(), a suite's own code.
        """
        child = self._child
        if child.open:
            return self.children, "test", next(iter(child.open))
        if child.fixture is not None:
            return self.children, "fixture", child.fixture.serial
        if child.is_listed and not child.has_ended:
            return self.children, BETWEEN, child.lines
        return None

    def settled(self) -> frozenset[Key]:
        """Tests that a further child need not run."""
        return frozenset(key for key, record in self.records.items() if record.is_settled)

    def left(self) -> list[Key]:
        """Tests of which nothing is known but that they were listed."""
        return [key for key, record in self.records.items() if not record.is_settled]

    def out_of_reach(self) -> list[Key]:
        """Those of them that this child, though it listed its tests, did not find."""
        found = set(self._child.keys)
        return [key for key in self.left() if key not in found] if self._child.is_listed else []

    def start_child(self, nonce: str) -> None:
        """A further child speaks from here on."""
        self._child = Child(nonce.encode("ascii"))
        self.children += 1

    def hear(self, data: bytes) -> None:
        """Take the next bytes of the child's event channel."""
        child = self._child
        if child.is_over:
            return
        child.partial += data
        if b"\n" in data:
            *lines, child.partial = child.partial.split(b"\n")
            for line in lines:
                if child.skipping:
                    child.skipping = False
                else:
                    self._hear_line(line)
        if len(child.partial) > LONGEST_LINE:
            self.refused += not child.skipping
            child.partial, child.skipping = bytearray(), True

    def stop_hearing(self) -> None:
        """The child's time is over: what it still says is not part of the account."""
        self._child.is_over = True

    def end_child(self, ending: Ending) -> None:
        """The child is gone; how, matters only where no end record was heard."""
        child = self._child
        if child.partial:
            self.refused += 1
        if child.has_ended:
            self.ended += 1
            self.is_good = self.is_good and child.is_good
            ending = Ending(Outcome.CRASHED, "the test never said how it ended")
        for index in child.open:
            if (record := self._record(child, index)) is not None and record.outcome is None:
                self._give(record, ending.outcome, ending.sentence, ending.dump)
        if child.has_ended or child.is_explained or child.open or ending.outcome is Outcome.NOT_RUN:
            child.open.clear()
        elif child.fixture is not None:
            self._fail_fixture(child, child.fixture, ending.sentence, ending.dump)
        elif (last := self._record(child, child.last)) is not None:
            self._blame(last, ending.outcome, ending.sentence, ending.dump)
        elif child.is_listed or not child.loading:
            self.unexplained.append(f"{ending.sentence} outside any test")
            if ending.dump:
                self._add_fixture("the suite", "", ending.sentence, ending.dump)
        else:
            outcome = Outcome.LOAD_ERROR if ending.outcome is Outcome.CRASHED else ending.outcome
            self._lose_module(child, outcome, f"{ending.sentence} while importing this module", ending.dump)

    def _hear_line(self, line: bytearray) -> None:
        child = self._child
        event = parse_event(line, child.nonce) if len(line) <= LONGEST_LINE else None
        if event is None:
            self.refused += 1
        elif isinstance(event, events.Stray):
            self.strays += 1
        elif event.n < child.lines or child.has_ended:
            self.contradictions += 1
        else:
            self.lost += event.n - child.lines
            child.lines = event.n + 1
            if not self._apply(child, event):
                self.refused += 1
                self.lost += 1

    def _apply(self, child: Child, event: AnyEvent) -> bool:
        """Whether the event made sense where it came."""
        match event:
            case events.Start():
                return self._start(child, event.test)
            case events.Stop():
                return self._stop(child, event)
            case events.SubtestEnd():
                return self._add_subtest(child, event)
            case events.Manifest():
                in_place = not child.is_listed and event.first == len(child.keys)
                return in_place and all(map(partial(self._add_key, child), event.ids))
            case events.Listed():
                return self._end_list(child, event)
            case events.Late():
                child.is_whole = False
                return child.is_listed and self._add_key(child, event.id)
            case events.Turn():
                child.fixture, child.last = None, event.test
            case events.Suite():
                child.fixture, child.last = None, NOBODY
            case events.Broken():
                return self._break(child, event)
            case events.Fixture():
                child.fixture, child.last = event, NOBODY
            case events.FixtureFailed():
                self._fail_fixture(child, event, event.message, event.traceback)
            case events.FixtureSkipped():
                if not event.tests:
                    self.fixtures.skip(event.phase, event.scope, event.message)
                self._default(child, event.tests, Outcome.SKIPPED, event.message)
                child.fixture = None
            case events.Loading():
                child.loading = event.module
            case events.DiscoveryFailed():
                self._lose_module(child, Outcome.LOAD_ERROR, event.message, event.traceback)
            case events.Hello():
                child.has_started = True
                self.python = self.python or event.python[:40]
            case events.Unusable():
                self.setup_problem = clean(event.message)[:LONGEST_MESSAGE] or "discovery failed"
            case events.End():
                child.has_ended, child.is_good = True, event.good
                child.fixture = None
                child.threads = [clean(name)[:100] for name in event.threads[:20]]
        return True

    def _start(self, child: Child, index: int) -> bool:
        record = self._record(child, index)
        if record is None or not child.is_listed or index in child.open:
            return False
        child.fixture = None
        child.open[index] = None
        child.last = index
        if record.outcome is None:
            record.scope = (self.children, str(index))
        return True

    def _stop(self, child: Child, event: events.Stop) -> bool:
        record = self._record(child, event.test)
        if record is None or not child.is_listed or event.outcome not in CLAIMS:
            return False
        child.last = event.test
        was_open = event.test in child.open
        child.open.pop(event.test, None)
        if record.outcome is not None:
            return was_open  # by an earlier child
        record.duration_s = event.duration if 0 <= event.duration < 1e9 else None
        record.more_subtests += max(0, event.more)
        self._give(record, event.outcome, event.message, event.traceback)
        return True

    def _add_subtest(self, child: Child, event: events.SubtestEnd) -> bool:
        record = self._record(child, event.test)
        if record is None or event.test not in child.open or event.outcome not in CLAIMS:
            return False
        if record.outcome is not None:
            return True
        if len(record.subtests) >= MOST_SUBTESTS or not self._budget.has_room(event.parameters):
            record.more_subtests += 1
            return True
        message, traceback = self._budget.texts(event.message, event.traceback)
        record.subtests.append(
            Subtest(
                parameters=clean(event.parameters),
                ordinal=len(record.subtests),
                outcome=event.outcome,
                message=message,
                traceback=traceback,
            )
        )
        return True

    def _add_key(self, child: Child, test_id: str) -> bool:
        test_id = clean(test_id)
        key = (test_id, child.counts.get(test_id, 0))
        if key not in self.records:
            if not self._selection.includes(key):
                child.unselected += ROW_SIZE + len(test_id)
                if child.unselected > TEXT_BUDGET:
                    self.is_overfull = True
                    return False
            elif self._has_room_for_test(test_id):
                self.records[key] = Record(key)
                child.found_anew += self.is_listed and not child.is_listed
            else:
                return False
        child.counts[test_id] += 1
        child.keys.append(key)
        return True

    def _end_list(self, child: Child, event: events.Listed) -> bool:
        if child.is_listed or event.tests != len(child.keys):
            return False
        if not self.is_listed:
            self.unloaded = [clean(path)[:500] for path in event.unloaded[:100]]
            self.more_unloaded = max(0, event.more)
        child.is_listed = self.is_listed = True
        child.is_whole = event.whole
        return True

    def _lose_module(self, child: Child, outcome: Outcome, message: str, traceback: str) -> None:
        if child.loading and not child.is_listed:
            module = clean(child.loading)
            child.loading = ""
            if module in self.lost_modules:
                self.unexplained.append(f"discovery broke over {module} though it was passed over: {message}")
                return
            if not self._has_room_for_test(module):
                return
            child.is_explained = True
            self.lost_modules.append(module)
            record = self.records.setdefault((module, 0), Record((module, 0)))
            if record.outcome is None:
                self._give(record, outcome, message, traceback)

    def _fail_fixture(
        self, child: Child, about: events.Fixture | events.FixtureFailed, message: str, traceback: str
    ) -> None:
        phase, scope = clean(about.phase)[:100], clean(about.scope)[:1000]
        running = child.fixture
        place = None
        if running is not None and (running.phase, running.scope) == (about.phase, about.scope):
            place = (self.children, f"f{running.serial}")
        child.fixture = None
        self._add_fixture(phase, scope, message, traceback, place)
        self._default(child, about.tests, Outcome.NOT_RUN, f"{phase} ({scope}) failed")

    def _add_fixture(
        self, phase: str, scope: str, message: str, traceback: str, place: Scope | None = None
    ) -> None:
        found = self.fixtures.fail(phase, scope, message, traceback, place)
        self.news += [found] if found is not None else []

    def _default(self, child: Child, tests: Iterable[int], outcome: Outcome, message: str) -> None:
        for index in tests:
            record = self._record(child, index)
            if record is not None and not record.is_settled and index not in child.open:
                record.default = (outcome, clean(message)[:LONGEST_MESSAGE])
                self.done += 1
                self.news.append(record)

    def _give(self, record: Record, outcome: Outcome, message: str, traceback: str) -> None:
        if not record.is_settled or record.outcome is not None:
            self.news.append(record)
        self.done += not record.is_settled
        self.failed += not outcome.is_good and (record.outcome is None or record.outcome.is_good)
        record.outcome = outcome
        record.message, record.traceback = self._budget.texts(message, traceback)

    def _blame(self, record: Record, outcome: Outcome, message: str, traceback: str) -> None:
        """Give a test what came of its run() while it was not open."""
        if record.outcome is not None:
            message = f"{message} after this test had ended"
        self._give(record, outcome, message, "\n".join(filter(None, (record.traceback, traceback))))

    def _break(self, child: Child, event: events.Broken) -> bool:
        record = self._record(child, event.test)
        if record is not None and (record.outcome is None or record.outcome in CLAIMS):
            self._blame(record, Outcome.ERRORED, event.message, event.traceback)
        return record is not None

    def _record(self, child: Child, index: int) -> Record | None:
        return self.records.get(child.keys[index]) if 0 <= index < len(child.keys) else None

    def _has_room_for_test(self, name: str) -> bool:
        if len(self.records) < MOST_TESTS and self._budget.has_room(name):
            return True
        self.is_overfull = True
        return False
