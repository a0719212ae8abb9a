"""A program in a sandbox is seen to its end, whatever it does with its output."""

from __future__ import annotations

import time
import unittest

from ciapp.errors import StaleAttemptError
from ciapp.testing.program import OUTPUT_HALF, Ended, run_program
from tests.support.processes import processes_with
from tests.support.sandboxes import Place


class TestProgram(unittest.TestCase):
    def setUp(self):
        place = Place(self)
        self.sandbox = place.open(place.commit({"file": ""}))
        self.stop = False

    def run_script(self, script: str, timeout_s: float = 60) -> Ended:
        return run_program(
            self.sandbox,
            ["sh", "-c", script],
            environment={"NAME": "value"},
            readable=(),
            timeout_s=timeout_s,
            should_stop=lambda: self.stop,
        )

    def test_it_tells_status_and_both_streams(self):
        ended = self.run_script("echo $NAME; echo trouble >&2; exit 3")
        self.assertEqual((3, "value\ntrouble\n", ""), (ended.status, ended.output, ended.breach))
        self.assertFalse(ended.is_good)
        self.assertTrue(self.run_script("true").is_good)

    def test_a_signal_is_told_apart_from_a_status(self):
        self.assertEqual(-9, self.run_script("kill -9 $$").status)

    def test_of_much_output_head_and_tail_are_kept(self):
        output = self.run_script("echo first; head -c 1000000 /dev/zero; echo last").output
        self.assertRegex(output, r"(?s)^first\n.*\[\d+ bytes left out\].*last\n$")
        self.assertLess(len(output), 10 * OUTPUT_HALF)

    def test_what_closes_its_output_is_still_waited_for(self):
        self.assertEqual(4, self.run_script("exec >&- 2>&-; sleep 0.5; exit 4").status)

    def test_what_it_leaves_behind_ends_with_it(self):
        started_s = time.monotonic()
        self.assertEqual(0, self.run_script("sleep 654.25 & exit 0").status)
        self.assertLess(time.monotonic() - started_s, 30)
        self.assertEqual([], processes_with("654.25"))

    def test_what_takes_too_long_is_ended(self):
        ended = self.run_script("echo begun; exec sleep 654.5", timeout_s=0.5)
        self.assertEqual(
            (None, "begun\n", "it took longer than 0.5 s"), (ended.status, ended.output, ended.breach)
        )
        self.assertEqual([], processes_with("654.5"))

    def test_it_is_ended_when_the_run_is_stopped(self):
        began_s = time.monotonic()

        def should_stop() -> bool:
            return bool(processes_with("654.75")) or time.monotonic() - began_s > 30

        with self.assertRaisesRegex(StaleAttemptError, "the run was stopped"):
            run_program(
                self.sandbox,
                ["sleep", "654.75"],
                environment={},
                readable=(),
                timeout_s=60,
                should_stop=should_stop,
            )
        self.assertLess(time.monotonic() - began_s, 30)
        self.assertEqual([], processes_with("654.75"))

    def test_it_is_not_started_for_a_run_that_is_stopped(self):
        self.stop = True
        with self.assertRaises(StaleAttemptError):
            self.run_script("true")


if __name__ == "__main__":
    unittest.main()
