"""The verdict on what children say: honest, cut off, repeated, reordered, forged."""

from __future__ import annotations

import tracemalloc
import unittest
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from ciapp.results.report import Findings, Outcome, Status
from ciapp.testing import budget
from ciapp.testing import journal as journals
from ciapp.testing.journal import Journal
from ciapp.testing.output import Outputs
from ciapp.testing.records import Ending, Selection
from ciapp.testing.verdict import Close, conclude
from tests.support.speech import NONCE, Speech

GONE = Ending(Outcome.CRASHED, "the process exited with status 0")
SAYABLE = ("passed", "failed", "errored", "skipped", "expected-failure", "unexpected-success", "load-error")


def judge(*children: bytes, ending: Ending = GONE, **close: object) -> Findings:
    """Findings of an attempt whose children said this, one after the other."""
    journal = Journal()
    for said in children:
        journal.start_child(NONCE)
        journal.hear(said)
        journal.end_child(ending)
    return conclude(journal, Outputs(test_limit=1000, run_limit=10_000), Close(**close))  # type: ignore[arg-type]


def outcomes(findings: Findings) -> dict[tuple[str, int], str]:
    return {(test.id, test.ordinal): test.outcome.value for test in findings.tests}


@st.composite
def speeches(draw: st.DrawFn, sayable: Sequence[str] = SAYABLE) -> Speech:
    """Everything an honest child may say."""
    ids = draw(st.lists(st.sampled_from(["a.A.test", "a.A.test_2", "b.B.test", "c"]), min_size=1, max_size=6))
    speech = Speech().hello().say("loading", module="a").list_tests(ids)
    for index in range(len(ids)):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            speech.say("fixture", serial=index, phase="setUpClass", scope="a.A", tests=[index])
        if kind == 1 and "failed" in sayable:
            speech.say(
                "fixture-failed", phase="setUpClass", scope="a.A", tests=[index], message="m", traceback="t"
            )
            continue
        if kind == 2:
            speech.say("fixture-skipped", phase="setUpClass", scope="a.A", tests=[index], message="m")
            continue
        outcome = draw(st.sampled_from(sayable))
        speech.say("start", test=index)
        if kind == 3:
            speech.say("subtest", test=index, parameters="(i=1)", outcome=outcome, message="", traceback="")
        speech.say("stop", test=index, outcome=outcome, duration=0.5, message="m", traceback="t", more=kind)
    return speech.end()


NEVER_HEARD = st.sampled_from(
    [
        b"",
        b"garbage\n",
        b"\xff\x00\n",
        b'{"type":"end","n":0,"threads":[],"good":true}\n',
        b'ffffffffffffffff {"type":"stop","n":3,"test":0,"outcome":"passed","duration":0.1}\n',
        f'{NONCE} {{"type":"stop","n":99999,"test":-1,"outcome":"passed","duration":1e999}}\n'.encode(),
        f'{NONCE} {{"type":"start","n":0,"test":1000000000000000000000000}}\n'.encode(),
        f'{NONCE} {{"type":"stop","n":1,"test":0,"outcome":"crashed","duration":0}}\n'.encode(),
        f"{NONCE} {'[' * 5000}\n".encode(),
        f'{NONCE} {{"type":"manifest","n":0,"first":0,"ids":["\\ud800"]}}\n'.encode(),
    ]
)


class TestHonestChild(unittest.TestCase):
    def test_all_good_outcomes_pass(self) -> None:
        speech = Speech().hello().list_tests(["a", "b", "c"])
        speech.run(0).run(1, "skipped", message="why").run(2, "expected-failure").end()

        findings = judge(speech.said())

        self.assertEqual(Status.PASSED, findings.status)
        self.assertEqual("3.11.7", findings.python)
        self.assertEqual((), findings.warnings)

    def test_each_bad_outcome_fails_the_run(self) -> None:
        for outcome in ("failed", "errored", "unexpected-success", "load-error"):
            with self.subTest(outcome=outcome):
                findings = judge(Speech().hello().list_tests(["a", "b"]).run(0).run(1, outcome).end().said())

                self.assertEqual(Status.FAILED, findings.status)
                self.assertEqual({("a", 0): "passed", ("b", 0): outcome}, outcomes(findings))

    def test_a_failed_fixture_fails_a_run_of_passed_tests(self) -> None:
        speech = Speech().hello().list_tests(["m.A.a"]).run(0)
        speech.say(
            "fixture-failed", phase="tearDownClass", scope="m.A", tests=[], message="why", traceback="tb"
        )

        findings = judge(speech.end().said())

        self.assertEqual(Status.FAILED, findings.status)
        self.assertEqual(["why"], [found.message for found in findings.fixtures])

    def test_no_tests_is_no_pass(self) -> None:
        self.assertEqual(Status.NO_TESTS, judge(Speech().hello().list_tests([]).end().said()).status)

    def test_a_run_cut_short_keeps_its_status(self) -> None:
        speech = Speech().hello().list_tests(["a"]).run(0).end()

        findings = judge(speech.said(), status=Status.CANCELLED, reason="stopped")

        self.assertEqual((Status.CANCELLED, "stopped"), (findings.status, findings.reason))


class TestSilentChild(unittest.TestCase):
    def test_without_an_end_record_a_run_of_passed_tests_fails(self) -> None:
        findings = judge(Speech().hello().list_tests(["a"]).run(0).said())

        self.assertEqual(Status.FAILED, findings.status)
        self.assertEqual({("a", 0): "crashed"}, outcomes(findings))
        self.assertEqual(
            "the process exited with status 0 after this test had ended", findings.tests[0].message
        )

    def test_a_child_that_ends_before_its_first_test_is_not_explained(self) -> None:
        findings = judge(Speech().hello().list_tests(["a"]).said())

        self.assertEqual("the process exited with status 0 outside any test", findings.reason)

    def test_own_code_around_tests_is_not_the_last_tests_fault(self) -> None:
        speech = Speech().hello().list_tests(["a", "b"]).run(0)
        own_run, own_suite = Speech(), Speech()
        own_run.lines, own_suite.lines = [*speech.lines], [*speech.lines]

        self.assertEqual(
            {("a", 0): "passed", ("b", 0): "crashed"}, outcomes(judge(own_run.say("turn", test=1).said()))
        )
        self.assertEqual(
            {("a", 0): "passed", ("b", 0): "not-run"}, outcomes(judge(own_suite.say("suite").said()))
        )

    def test_what_breaks_after_a_test_never_makes_it_better(self) -> None:
        crashed = Speech().hello().list_tests(["a"]).say("start", test=0)
        again = Speech().hello().list_tests(["a"]).run(0)
        broken = again.say("broken", test=0, message="SystemExit: 0", traceback="why").end(good=True)

        [test] = judge(broken.said()).tests
        self.assertEqual(("errored", "why"), (test.outcome.value, test.traceback))
        self.assertEqual({("a", 0): "crashed"}, outcomes(judge(crashed.said(), broken.said())))

    def test_the_open_test_crashed_and_the_rest_did_not_run(self) -> None:
        speech = Speech().hello().list_tests(["a", "b", "c"]).run(0).say("start", test=1)

        findings = judge(speech.said())

        self.assertEqual({("a", 0): "passed", ("b", 0): "crashed", ("c", 0): "not-run"}, outcomes(findings))

    def test_a_crashed_test_does_not_pass_in_the_next_child(self) -> None:
        first = Speech().hello().list_tests(["a", "b"]).say("start", test=0)
        second = Speech().hello().list_tests(["a", "b"]).run(0).run(1).end()

        findings = judge(first.said(), second.said())

        self.assertEqual({("a", 0): "crashed", ("b", 0): "passed"}, outcomes(findings))
        self.assertEqual(Status.FAILED, findings.status)

    def test_an_end_record_does_not_excuse_a_child_that_went_silent_before(self) -> None:
        first = Speech().hello().list_tests(["a", "b"]).run(0)
        second = Speech().hello().list_tests(["a", "b"]).run(1).end()

        findings = judge(first.said(), second.said())

        self.assertEqual({("a", 0): "crashed", ("b", 0): "passed"}, outcomes(findings))
        self.assertEqual(Status.FAILED, findings.status)

    def test_a_test_that_is_open_at_the_end_has_not_passed(self) -> None:
        findings = judge(Speech().hello().list_tests(["a"]).say("start", test=0).end().said())

        self.assertEqual({("a", 0): "crashed"}, outcomes(findings))


class TestDishonestChild(unittest.TestCase):
    def test_lines_of_others_are_refused_and_counted(self) -> None:
        speech = Speech().hello().list_tests(["a"]).run(0).end()
        forged = Speech("f" * 16).hello().list_tests(["x"]).run(0, "failed")
        speech.lines[2:2] = [*forged.lines, b"noise\n"]

        findings = judge(speech.said())

        self.assertEqual(Status.PASSED, findings.status)
        self.assertEqual({("a", 0): "passed"}, outcomes(findings))
        self.assertEqual(("6 lines on the event channel refused: not of this run",), findings.warnings)

    def test_a_line_that_comes_twice_or_after_the_end_does_not_pass(self) -> None:
        honest = Speech().hello().list_tests(["a"]).run(0).end()
        for line in honest.lines:
            with self.subTest(line):
                findings = judge(honest.said() + line)
                self.assertEqual(Status.FAILED, findings.status)
                self.assertEqual({("a", 0): "passed"}, outcomes(findings))
                self.assertTrue(findings.reason.startswith("1 event of the tests came twice"))

    def test_an_odd_exit_does_not_pass(self) -> None:
        findings = judge(Speech().hello().list_tests(["a"]).run(0).end().said(), odd_exits=("it burnt",))

        self.assertEqual((Status.FAILED, "it burnt"), (findings.status, findings.reason))

    def test_an_end_that_is_not_good_needs_a_failure(self) -> None:
        good, bad = (
            Speech().hello().list_tests(["a"]).run(0, outcome).end(good=False).said()
            for outcome in ("passed", "failed")
        )
        findings = judge(good)
        self.assertEqual(Status.FAILED, findings.status)
        self.assertIn("unittest itself takes the tests for failed", findings.reason)
        self.assertEqual("", judge(bad).reason)

    def test_text_in_front_of_a_line_is_passed_over(self) -> None:
        speech = Speech().hello().list_tests(["a"]).run(0).end()
        speech.lines[3] = b"noise without an end" + speech.lines[3]

        self.assertEqual(Status.PASSED, judge(speech.said()).status)

    def test_a_line_without_end_costs_no_memory(self) -> None:
        journal = Journal()
        journal.start_child(NONCE)
        for _ in range(20):
            journal.hear(b"x" * (journals.LONGEST_LINE // 4))

        self.assertLessEqual(len(journal.child.partial), journals.LONGEST_LINE)
        self.assertEqual(1, journal.refused)

    def test_a_flood_of_events_costs_no_memory(self) -> None:
        long = "x" * 1_000_000
        floods = {
            "modules that are lost": lambda n: (
                Speech().say("loading", module=f"{n}{long}").lines
                + Speech().say("discovery-failed", message="", traceback="").lines
            ),
            "lists": lambda n: Speech().say("manifest", first=n, ids=[f"{n}{long}"]).lines,
            "late tests": lambda n: Speech().say("late", id=f"{n}{long}").lines,
        }
        for name, flood in floods.items():
            with self.subTest(name):
                journal = Journal(Selection(frozenset()) if name == "lists" else Selection())
                journal.start_child(NONCE)
                if name == "late tests":
                    journal.hear(Speech().hello().list_tests(["a"]).said())
                tracemalloc.start()
                for number in range(120):
                    for line in flood(number):
                        said = line.split(b'"n": ', 1)
                        after = said[1].split(b",", 1)[1]
                        journal.hear(said[0] + b'"n": %d,' % journal.child.lines + after)
                kept, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                self.assertLess(kept, budget.TEXT_BUDGET * 3 // 2)
                self.assertTrue(journal.is_overfull)

    def test_a_module_is_lost_but_once(self) -> None:
        said = Speech().hello().say("loading", module="m").say("discovery-failed", message="no", traceback="")

        findings = judge(said.said(), said.said())

        self.assertEqual({("m", 0): "load-error"}, outcomes(findings))
        self.assertEqual("discovery broke over m though it was passed over: no", findings.reason)

    def test_more_tests_than_a_report_can_hold_do_not_pass(self) -> None:
        speech = Speech().hello()
        for first in range(0, 200_400, 400):
            speech.say("manifest", first=first, ids=[f"t{number}" for number in range(first, first + 400)])
        speech.say("listed", tests=200_400, whole=True, unloaded=[], more=0)

        findings = judge(speech.end().said())

        self.assertEqual(journals.MOST_TESTS, len(findings.tests))
        self.assertEqual("there are more tests than one report can hold; split the suite", findings.reason)

    def test_tracebacks_beyond_the_budget_are_left_out(self) -> None:
        speech = Speech().hello().list_tests([f"t{number}" for number in range(70)])
        for number in range(70):
            speech.run(number, "failed", message="short", traceback="x" * 1_000_000)

        findings = judge(speech.end().said())

        self.assertEqual(70, len(findings.tests))
        self.assertLess(sum(len(test.traceback) for test in findings.tests), budget.TEXT_BUDGET)
        self.assertEqual(budget.LEFT_OUT, findings.tests[-1].traceback)

    def test_nul_in_texts_is_written_out(self) -> None:
        speech = Speech().hello().list_tests(["a\0"]).run(0, "failed", message="m\0", traceback="t\0").end()

        [test] = judge(speech.said()).tests

        self.assertEqual(("a\\x00", "m\\x00", "t\\x00"), (test.id, test.message, test.traceback))


class TestMissingTests(unittest.TestCase):
    def known(self, speech: Speech, *ids: str) -> Findings:
        journal = Journal()
        journal.start_child(NONCE)
        journal.hear(speech.said())
        journal.end_child(GONE)
        outputs = Outputs(test_limit=1000, run_limit=10_000)
        return conclude(journal, outputs, Close(), [(test_id, 0) for test_id in ids])

    def test_known_tests_of_a_module_that_does_not_load_are_not_run(self) -> None:
        findings = self.known(
            Speech().hello().list_tests(["m"]).run(0, "load-error").end(), "m.A.test", "m2.A.test"
        )

        self.assertEqual({("m", 0): "load-error", ("m.A.test", 0): "not-run"}, outcomes(findings))
        self.assertEqual(("1 test of the parent commit not found: m2.A.test",), findings.warnings)

    def test_without_a_list_every_known_test_is_not_run(self) -> None:
        findings = self.known(Speech().hello(), "m.A.test")

        self.assertEqual({("m.A.test", 0): "not-run"}, outcomes(findings))
        self.assertEqual((), findings.warnings)

    def test_a_module_that_loads_again_has_not_vanished(self) -> None:
        findings = self.known(Speech().hello().list_tests(["m.A.test"]).run(0).end(), "m")

        self.assertEqual((), findings.warnings)


class TestAnyStream(unittest.TestCase):
    def check(self, findings: Findings) -> None:
        keys = [(test.id, test.ordinal) for test in findings.tests]
        self.assertEqual(len(set(keys)), len(keys), "one final outcome for each test")
        if findings.status is Status.PASSED:
            self.assertTrue(all(test.outcome.is_good for test in findings.tests))
            self.assertTrue(keys)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(speech=speeches(), data=st.data())
    def test_cut_at_any_byte(self, speech: Speech, data: st.DataObject) -> None:
        said = speech.said()
        cut = data.draw(st.integers(0, len(said)))

        findings = judge(said[:cut])

        self.check(findings)
        # All but the newline of the last line says as much as the whole.
        if cut < len(said):
            self.assertNotEqual(Status.PASSED, findings.status)
        listed = next(index for index, line in enumerate(speech.lines) if b'"listed"' in line)
        if cut >= len(b"".join(speech.lines[: listed + 1])):
            self.assertEqual(outcomes(judge(said)).keys(), outcomes(findings).keys())

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(speech=speeches(), data=st.data())
    def test_repeated_reordered_dropped_and_forged_lines(self, speech: Speech, data: st.DataObject) -> None:
        honest = judge(speech.said())
        lines = data.draw(st.lists(st.one_of(st.sampled_from(speech.lines), NEVER_HEARD), max_size=40))
        if data.draw(st.booleans()):
            lines = speech.lines + lines
        if data.draw(st.booleans()):
            lines = data.draw(st.permutations(lines))

        findings = judge(b"".join(lines))

        self.check(findings)
        if honest.status is not Status.PASSED:
            self.assertNotEqual(Status.PASSED, findings.status)
        if not any(b'"type": "end"' in line for line in lines):
            self.assertNotEqual(Status.PASSED, findings.status)

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(speech=speeches(("passed", "skipped")), data=st.data())
    def test_chunks_of_any_size_say_the_same(self, speech: Speech, data: st.DataObject) -> None:
        said = speech.said()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=30)))
        journal = Journal()
        journal.start_child(NONCE)
        for start, stop in zip([0, *cuts], [*cuts, len(said)], strict=True):
            journal.hear(said[start:stop])
        journal.end_child(GONE)

        findings = conclude(journal, Outputs(test_limit=1000, run_limit=10_000), Close())

        self.assertEqual(judge(said), findings)
        self.assertEqual(Status.PASSED, findings.status)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(data=st.binary(max_size=300), nonce=st.booleans())
    def test_arbitrary_bytes(self, data: bytes, nonce: bool) -> None:
        findings = judge(NONCE.encode() + b" " + data if nonce else data)

        self.check(findings)
        self.assertNotEqual(Status.PASSED, findings.status)
