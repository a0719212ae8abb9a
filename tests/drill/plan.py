"""What a drill does, decided by its seed alone: commits, pushes, and the faults that strike meanwhile.

In:  a seed, the number of commits and of clones, and the faults that broker and database can suffer.
Out: a plan; the same for the same input, on every machine. When exactly a fault meets whom is the machine's.

Each branch and tag belongs to one clone, so no push is ever refused. What a lost hook brought is found in
its ref, as the old value of the next push there, or in git's log of the ref, which goes with the ref. So a
branch that lost two hooks in a row is not deleted, nor does one vanish that lost its last hook without a
record of that.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from math import inf

import msgspec

from tests.drill.projects import Project, make_project

COMMITS_PER_S = 2.0  #: how fast they are pushed, all clones together
#: How often each lane strikes, beyond each of its faults once.
COMMITS_PER_FAULT = {
    "processes": 6,
    "services": 15,
    "machine": 40,
    "network": 12,
    "terminals": 8,
    "repository": 20,
    "damage": 15,
    "update": inf,  # once
}
LONG = 200  #: commits of a drill whose faults may last for a minute
USUAL_S, LONGEST_S = 5.0, 60.0
BRANCHES = 2  #: of each clone at first
HOOK_DIES = (
    "dd before",
    "dd after",
    "mv before",
    "mv after",
)  #: program of the hook, and when
LEAVES_A_RECORD = {"mv after"}


class PlannedCommit(msgspec.Struct, frozen=True):
    """A commit; the first is number 1."""

    number: int
    parents: tuple[int, ...]
    project: Project


class Update(msgspec.Struct, frozen=True):
    """What a push does to one ref."""

    ref: str
    commit: int | None  #: None deletes the ref
    is_annotated: bool = False  #: an annotated tag of the commit is pushed
    is_forced: bool = False


class PlannedPush(msgspec.Struct, frozen=True):
    """One `git push` of a clone."""

    clone: int
    at_s: float  #: since the start of the drill
    updates: tuple[Update, ...]
    hook_dies: str  #: one of HOOK_DIES; empty: it lives


class PlannedFault(msgspec.Struct, frozen=True):
    """One fault, in a lane where one follows the other."""

    kind: str
    gap_s: float  #: after the end of the one before
    lasts_s: float  #: of those that end
    victim: int  #: taken modulo whatever can be struck


class Plan(msgspec.Struct, frozen=True):
    """All of a drill."""

    commits: tuple[PlannedCommit, ...]
    pushes: tuple[PlannedPush, ...]
    lanes: Mapping[str, tuple[PlannedFault, ...]]

    def expected(self) -> dict[int, Project]:
        """Number → project of each commit that the pushes bring."""
        wanted = {one.commit for push in self.pushes for one in push.updates if one.commit is not None}
        waiting, found = list(wanted), set(wanted)
        while waiting:
            new = set(self.commits[waiting.pop() - 1].parents) - found
            found |= new
            waiting += new
        return {number: self.commits[number - 1].project for number in sorted(found)}


def make_plan(
    seed: int, commits: int, clones: int, kinds: Mapping[str, Sequence[str]], faults: float
) -> Plan:
    """The plan of a seed. `kinds` are those of each lane; `faults` says how many, 1 being as usual."""
    chance = random.Random(seed)
    history = _History(chance, commits, clones)
    pushes = tuple(history.pushes())
    lanes = {}
    for lane, names in kinds.items():
        number = round(max(len(names), commits / COMMITS_PER_FAULT[lane]) * faults)
        lanes[lane] = tuple(_faults(chance, names, number, LONGEST_S if commits >= LONG else USUAL_S))
    return Plan(tuple(history.commits), pushes, lanes)


def _faults(
    chance: random.Random, names: Sequence[str], number: int, longest_s: float
) -> Iterator[PlannedFault]:
    """Every kind as often as every other, in changing order; one of ten lasts longer than the others."""
    waiting: list[str] = []
    for _ in range(number):
        waiting = waiting or chance.sample(names, len(names))
        lasts_s = chance.uniform(1.0, longest_s if chance.random() < 0.1 else USUAL_S)
        yield PlannedFault(waiting.pop(), chance.expovariate(1 / 1.2), lasts_s, chance.randrange(10**6))


class _History:
    """Grows branches and pushes them."""

    def __init__(self, chance: random.Random, commits: int, clones: int) -> None:
        self.commits: list[PlannedCommit] = []
        self._chance = chance
        self._wanted = commits
        self._clones = clones
        self._branches: dict[str, list[int]] = {}  # ref → its commits along first parents
        self._unrecorded: set[str] = set()  # refs whose last push lost its hook
        self._kept: set[str] = set()  # refs whose log alone may tell of commits
        self._made = 0

    def pushes(self) -> Iterator[PlannedPush]:
        at_s = 0.0
        while len(self.commits) < self._wanted:
            clone = len(self.commits) % self._clones if at_s == 0 else self._chance.randrange(self._clones)
            before = len(self.commits)
            updates = self._updates(clone)
            yield PlannedPush(clone, round(at_s, 3), tuple(updates), self._fate_of_hook(updates))
            at_s += (len(self.commits) - before) * self._chance.uniform(0.5, 1.5) / COMMITS_PER_S

    def _updates(self, clone: int) -> list[Update]:
        own = [ref for ref in self._branches if ref.startswith(f"refs/heads/clone-{clone}/")]
        if len(own) < BRANCHES:
            return [self._new_branch(clone)]
        ref = self._chance.choice(own)
        [step] = self._chance.choices(
            ("grow", "merge", "force", "tag", "branch", "two", "delete"), (50, 12, 14, 8, 6, 6, 4)
        )
        if step == "merge":
            return [self._merge(ref)]
        if step == "force":
            return [self._force(ref)]
        if step == "tag":
            return [self._tag(clone, ref)]
        if step == "branch":
            return [self._new_branch(clone)]
        if step == "two":
            return [self._grow(one) for one in self._chance.sample(own, 2)]
        if step == "delete" and len(own) > BRANCHES and ref not in self._kept:
            del self._branches[ref]
            return [Update(ref, None)]
        return [self._grow(ref)]

    def _new_branch(self, clone: int) -> Update:
        self._made += 1
        ref = f"refs/heads/clone-{clone}/{self._made}"
        lines = list(self._branches.values())
        self._branches[ref] = list(self._chance.choice(lines)) if lines else []
        return self._grow(ref)

    def _grow(self, ref: str) -> Update:
        for _ in range(self._chance.randint(1, 3)):
            self._commit(ref)
        return Update(ref, self._branches[ref][-1])

    def _merge(self, ref: str) -> Update:
        others = [line[-1] for name, line in self._branches.items() if name != ref]
        self._commit(ref, self._chance.choice(others))
        return Update(ref, self._branches[ref][-1])

    def _force(self, ref: str) -> Update:
        line = self._branches[ref]
        del line[max(1, len(line) - self._chance.randint(1, 3)) :]
        self._commit(ref)
        return Update(ref, line[-1], is_forced=True)

    def _tag(self, clone: int, ref: str) -> Update:
        """A tag of a commit that is on no branch."""
        self._made += 1
        line = self._branches[ref]
        self._commit(ref)
        return Update(
            f"refs/tags/clone-{clone}/{self._made}", line.pop(), is_annotated=self._chance.random() < 0.5
        )

    def _commit(self, ref: str, merged: int | None = None) -> None:
        line = self._branches[ref]
        parents = ([line[-1]] if line else []) + ([merged] if merged not in (None, *line[-1:]) else [])
        number = len(self.commits) + 1
        if line and self._chance.random() < 0.03:
            project = self.commits[line[-1] - 1].project  # an empty commit
        else:
            project = make_project(number, self._chance)
        self.commits.append(PlannedCommit(number, tuple(one for one in parents if one), project))
        line.append(number)

    def _fate_of_hook(self, updates: Sequence[Update]) -> str:
        refs = {one.ref for one in updates}
        fate = self._chance.choice(HOOK_DIES) if self._chance.random() < 0.12 else ""
        is_deletion = any(one.commit is None for one in updates)
        if fate not in LEAVES_A_RECORD and is_deletion and refs & self._unrecorded:
            fate = ""
        if fate and fate not in LEAVES_A_RECORD:
            self._kept |= refs & self._unrecorded
            self._unrecorded |= refs
        else:
            self._unrecorded -= refs
        return fate
