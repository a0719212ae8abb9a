"""How many messages may be under way, and for which environments.

In:  the workers that are there, and what was sent and not begun.
Out: for one more run, whether there is a seat for its message.

The broker holds about one message per slot (`ciapp.results.queue`). But not every worker takes every run: so
a message has a seat at the workers that take its environment, and one that could sit elsewhere gives way. An
environment that no worker takes has a few seats of its own, where its messages keep nobody from anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from ciapp.results.workers import Worker

FEWEST_UNDER_WAY = 4  #: messages sent ahead, so that a worker that starts finds work
SPARE = 2  #: messages sent beyond one for each slot, so that a free slot finds the next

Group = frozenset[str]  #: the environments that some workers take, all of them the same


class Seats:
    """The seats of all workers, those of messages that are under way taken."""

    def __init__(self, workers: Iterable[Worker], sent: Mapping[str, int]) -> None:
        """`sent` counts messages by environment."""
        slots: Counter[Group] = Counter()
        for worker in workers:
            slots[frozenset(worker.environments)] += worker.slots
        self._size = {group: max(FEWEST_UNDER_WAY, number + SPARE) for group, number in slots.items()}
        self._sitting: dict[Group, Counter[str]] = {group: Counter() for group in self._size}
        for environment, number in sent.items():
            for _ in range(number):
                if not self.take(environment):
                    break

    @property
    def number(self) -> int:
        """How many there are, also for the environments that were asked about and that no worker takes."""
        return sum(self._size.values())

    @property
    def is_worth_filling(self) -> bool:
        """Whether enough seats are free that filling them together saves a transaction.

        The messages in the other seats keep every slot busy until then.
        """
        return any(self._size[group] - sitting.total() >= SPARE for group, sitting in self._sitting.items())

    def is_free(self, environment: str) -> bool:
        """Whether a message for this environment finds a seat."""
        return self._find(environment, set(), is_taken=False)

    def take(self, environment: str) -> bool:
        """Take a seat for a message; False when there is none."""
        return self._find(environment, set(), is_taken=True)

    def _find(self, environment: str, tried: set[Group], *, is_taken: bool) -> bool:
        """A seat, or one that somebody frees who finds another: an augmenting path."""
        for group in self._groups(environment):
            if group in tried:
                continue
            tried.add(group)
            sitting = self._sitting[group]
            if sitting.total() < self._size[group]:
                sitting[environment] += is_taken
                return True
            for other in [other for other, number in sitting.items() if number and other != environment]:
                if self._find(other, tried, is_taken=is_taken):
                    sitting[other] -= is_taken
                    sitting[environment] += is_taken
                    return True
        return False

    def _groups(self, environment: str) -> Collection[Group]:
        found = [group for group in self._size if environment in group]
        if not found:
            own = frozenset({environment})
            self._size[own], self._sitting[own] = FEWEST_UNDER_WAY, Counter()
            found = [own]
        return found
