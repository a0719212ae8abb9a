"""Which messages may be under way: a seat for each, and none kept from one by those who cannot sit there."""

from __future__ import annotations

import itertools
import unittest
from collections import Counter
from datetime import UTC, datetime

from ciapp.intake.seats import FEWEST_UNDER_WAY, SPARE, Seats
from ciapp.results.workers import Worker

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def worker(slots: int, *environments: str) -> Worker:
    return Worker(
        name=f"celery@{'-'.join(environments)}",
        host="here",
        slots=slots,
        sandbox="limits",
        python="3.11.7",
        environments=environments,
        started_at=NOW,
        seen_at=NOW,
    )


class TestSeats(unittest.TestCase):
    def fill(self, seats: Seats, *environments: str) -> Counter[str]:
        """Let these take seats in turn until nobody finds one."""
        taken: Counter[str] = Counter()
        while found := [one for one in environments if seats.take(one)]:
            taken.update(found)
            self.assertLess(taken.total(), 1000)
        return taken

    def test_a_few_messages_are_sent_ahead_for_workers_that_are_to_come(self):
        self.assertEqual({"default": FEWEST_UNDER_WAY}, self.fill(Seats([], {}), "default"))
        self.assertEqual({"default": 1}, self.fill(Seats([], {"default": FEWEST_UNDER_WAY - 1}), "default"))

    def test_there_is_a_seat_for_each_slot_and_some_to_spare(self):
        seats = Seats([worker(8, "default"), worker(3, "default")], {})
        self.assertEqual({"default": 8 + 3 + SPARE}, self.fill(seats, "default"))
        self.assertEqual({"default": 1}, self.fill(Seats([worker(1, "default")], {"default": 3}), "default"))

    def test_seats_are_filled_together(self):
        workers = [worker(8, "default")]
        self.assertTrue(Seats(workers, {}).is_worth_filling)
        self.assertTrue(Seats(workers, {"default": 8}).is_worth_filling)
        self.assertFalse(Seats(workers, {"default": 9}).is_worth_filling)
        self.assertFalse(Seats(workers, {"default": 50}).is_worth_filling)

    def test_environments_of_the_same_workers_share_their_seats(self):
        seats = Seats([worker(8, "default", "a", "b")], {"a": 3})
        self.assertEqual({"default": 4, "b": 3}, self.fill(seats, "default", "b"))
        self.assertFalse(seats.is_free("a"))

    def test_what_no_worker_takes_keeps_nobody_from_a_seat(self):
        seats = Seats([worker(8, "default", "a")], {"missing": 50})
        self.assertFalse(seats.is_free("missing"))
        self.assertEqual({"a": 8 + SPARE}, self.fill(seats, "a", "missing"))

    def test_what_is_missing_has_few_seats_of_its_own(self):
        seats = Seats([worker(8, "default")], {"default": 8 + SPARE})
        self.assertTrue(seats.is_free("x"))
        self.assertEqual(
            {"x": FEWEST_UNDER_WAY, "y": FEWEST_UNDER_WAY}, self.fill(seats, "x", "y", "default")
        )

    def test_a_message_that_can_sit_elsewhere_gives_way(self):
        old, new = worker(8, "default", "old"), worker(8, "default", "new")
        for workers in ((old, new), (new, old)):
            seats = Seats(workers, {"default": 8 + SPARE})
            self.assertEqual({"new": 8 + SPARE}, self.fill(seats, "new"))
            self.assertFalse(seats.is_free("default"))
            self.assertFalse(seats.is_free("old"))

    def test_way_is_made_over_several_messages(self):
        there = [worker(8, "a", "b"), worker(8, "b", "c"), worker(8, "a")]
        for workers in itertools.permutations(there):
            for sent in ({"a": 10, "b": 10}, {"b": 10, "a": 10}):
                seats = Seats(workers, sent)
                self.assertEqual({"c": 10}, self.fill(seats, "c"))
                self.assertEqual({}, self.fill(seats, "a", "b", "c"))

    def test_messages_of_workers_that_left_keep_nobody_else_from_a_seat(self):
        seats = Seats([worker(8, "a"), worker(8, "b")], {"a": 100, "b": 2})
        self.assertEqual({"b": 8}, self.fill(seats, "a", "b"))

    def test_asking_takes_nothing(self):
        seats = Seats([worker(8, "a", "b"), worker(8, "b")], {"b": 8 + SPARE})
        for _ in range(50):
            self.assertTrue(seats.is_free("a"))
        self.assertEqual({"a": 8 + SPARE}, self.fill(seats, "a"))


if __name__ == "__main__":
    unittest.main()
