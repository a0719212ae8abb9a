"""When a broker that is away is tried again."""

from __future__ import annotations

import unittest

from ciapp.intake.backoff import ASKED_PAUSE_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, Backoff


class TestBackoff(unittest.TestCase):
    def setUp(self) -> None:
        self.now_s = 1000.0
        self.backoff = Backoff(lambda: self.now_s)

    def fail_attempt(self) -> float:
        """Fail an attempt; how long it is until the next one is due."""
        self.backoff.note_failure()
        return self.wait()

    def wait(self) -> float:
        """Let time pass until an attempt is due; how long it was."""
        began_s = self.now_s
        while not self.backoff.is_due:
            self.now_s += 0.25
        return self.now_s - began_s

    def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success(self) -> None:
        self.assertTrue(self.backoff.is_due)
        self.assertEqual([1, 2, 4, 8, 16, 30, 30], [self.fail_attempt() for _ in range(7)])
        self.backoff.note_success()
        self.assertTrue(self.backoff.is_due)
        self.assertEqual([FIRST_PAUSE_S, 2 * FIRST_PAUSE_S], [self.fail_attempt() for _ in range(2)])

    def test_who_asks_is_served_once_a_second_and_lengthens_no_pause(self) -> None:
        while self.fail_attempt() < LONGEST_PAUSE_S:
            pass
        self.backoff.note_failure()
        due_at_s = self.now_s + LONGEST_PAUSE_S
        for _ in range(3):
            self.backoff.ask()
            self.assertEqual(ASKED_PAUSE_S, self.wait())
            self.backoff.note_failure()
        self.wait()
        self.assertEqual(due_at_s, self.now_s)


if __name__ == "__main__":
    unittest.main()
