"""What the runs of one commit come to: its state, its status, its counts.

A commit that names several Pythons has a run under each, and its status is all of them: it has passed when
every run has. Of runs that ended differently the one that tells most about the commit speaks for all: a
failure is certain whatever became of the others, while an infra-error says nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from ciapp.results.report import Outcome, State, Status
from ciapp.results.runs import Run

MOST_TELLING_FIRST = (
    Status.FAILED,
    Status.TIMED_OUT,
    Status.SETUP_FAILED,
    Status.NO_TESTS,
    Status.INFRA_ERROR,
    Status.CANCELLED,
    Status.PASSED,
)


class Overall(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a commit; the same as of its run where it has one alone."""

    state: State
    status: Status | None  #: None until all runs have finished
    counts: dict[str, int]  #: tests per outcome, of all runs together
    duration_s: float | None  #: of the run that took longest
    tests_known: int
    tests_done: int
    tests_failed: int


def most_telling(statuses: Iterable[Status]) -> Status:
    """The status of several finished runs, at least one, together."""
    return min(statuses, key=MOST_TELLING_FIRST.index)


def overall(runs: Sequence[Run]) -> Overall:
    """The runs of a commit, at least one, as one."""
    states = {run.state for run in runs}
    statuses = [run.status for run in runs if run.status is not None]
    state = states.pop() if len(states) == 1 else State.RUNNING
    found: Counter[str] = Counter()
    for run in runs:
        found.update(run.counts)
    return Overall(
        state=state,
        status=most_telling(statuses) if state is State.FINISHED else None,
        counts={outcome.value: found[outcome] for outcome in Outcome if found[outcome]},
        duration_s=max((run.duration_s for run in runs if run.duration_s is not None), default=None),
        tests_known=sum(run.tests_known for run in runs),
        tests_done=sum(run.tests_done for run in runs),
        tests_failed=sum(run.tests_failed for run in runs),
    )
