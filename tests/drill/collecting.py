"""git's garbage collection in the repository of a drill, and what the drill itself keeps from it.

In:  a stage.
Out: a repository without what nothing names; a violation where a run waits for a commit that is gone.

A commit that was forced away while it waits is kept by ciapp's pins alone. So the collection that prunes at
once comes when every push is recorded: a commit whose hook was lost has no pin yet. What the drill is to ask
for once more (cancelled, or purged in the moment in which it finished) it keeps itself, under refs/drill/:
for such a commit ciapp has nothing to do.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress

from ciapp.errors import LedgerAwayError
from ciapp.git import Repository
from ciapp.intake.push import changed_refs
from ciapp.results.pushes import find_repository, seen_refs
from ciapp.results.report import State
from tests.drill.plan import PlannedFault
from tests.drill.stage import REPOSITORY, Stage
from tests.drill.striking import NothingToStrikeError

PRUNES_LATER = "5.minutes.ago"  #: a commit whose hook was lost has no pin; git's own default is two weeks
FORCED_WITHIN_S, RECORDED_WITHIN_S = 20.0, 20.0
LOOK_EVERY_S = 0.2
KEPT = "refs/drill/"
TESTED = ("--branches", "--tags", "--glob=refs/ciapp/*")  #: what mirrors fetch


class Collecting:
    """Collects garbage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._git = Repository(stage.bare)
        self.strikes = {"git gc": self._collect_later, "git gc that prunes at once": self._collect_at_once}

    def keep(self, commits: Iterable[str]) -> set[str]:
        """Keep these commits from collection, whatever becomes of their runs; those that are still there."""
        there = {commit for commit in commits if self._git.has_commit(commit)}
        self._git.run("update-ref", "--stdin", stdin="".join(f"update {KEPT}{one} {one}\n" for one in there))
        return there

    def _collect_later(self, _fault: PlannedFault) -> None:
        with self._stage.no_pushes():
            self._collect(PRUNES_LATER)

    def _collect_at_once(self, _fault: PlannedFault) -> None:
        """Best in a moment in which a commit that was forced away waits; not for ever, there may be none."""
        until_s = time.monotonic() + FORCED_WITHIN_S
        while True:
            is_last = time.monotonic() > until_s
            with ExitStack() as no_push:
                no_push.enter_context(self._stage.terminals)
                no_push.enter_context(suppress(LedgerAwayError))
                no_push.enter_context(self._stage.no_pushes())
                if is_last or self._unfinished() - self._named():
                    self._await_records()
                    waiting = self._unfinished()
                    self._let_go(waiting)
                    pinned = len(waiting - self._named())
                    # Else git's logs keep what was forced away; what they tell is recorded.
                    self._git.run("reflog", "expire", "--expire=now", "--all")
                    self._collect("now")
                    lost = [one for one in waiting & self._unfinished() if not self._git.has_commit(one)]
                    break
            if is_last:
                raise NothingToStrikeError("the ledger is away")
            time.sleep(LOOK_EVERY_S)
        self._stage.violations += [f"{commit} was collected while its run waits" for commit in lost]
        self._stage.notes.append(f"git gc: of {len(waiting)} commits that wait, pins alone kept {pinned}")

    def _collect(self, prune: str) -> None:
        subprocess.run(
            ["git", "gc", "--quiet", f"--prune={prune}"],
            cwd=self._stage.bare,
            env=self._stage.ci.environment,
            capture_output=True,
            check=True,
        )

    def _named(self) -> set[str]:
        """Commits that branches and tags reach."""
        return set(self._git.run("rev-list", "--branches", "--tags").split())

    def _unfinished(self) -> set[str]:
        """Commits whose run waits or is under way. Raises LedgerError."""
        return {run.commit for run in self._stage.look().runs if run.state is not State.FINISHED}

    def _let_go(self, waiting: set[str]) -> None:
        """Leave to ciapp's pins what it has pinned by now."""
        kept = self._git.run("for-each-ref", "--format=%(objectname)", KEPT).split()
        reached = set(self._git.run("rev-list", *TESTED).split())
        ours = [commit for commit in kept if commit in waiting & reached]
        self._git.run("update-ref", "--stdin", stdin="".join(f"delete {KEPT}{one}\n" for one in ours))

    def _await_records(self) -> None:
        """Until the ledger knows all that was pushed; nobody pushes meanwhile."""
        until_s = time.monotonic() + RECORDED_WITHIN_S
        while not self._is_all_recorded():
            if time.monotonic() > until_s:
                raise NothingToStrikeError("pushes are not recorded yet")
            time.sleep(LOOK_EVERY_S)

    def _is_all_recorded(self) -> bool:
        """Whether there is no push that the ledger does not know."""
        repository = find_repository(self._stage.database, REPOSITORY)
        refs = {ref: value for ref, value in self._git.refs().items() if not ref.startswith(KEPT)}
        records = [file for file in (self._stage.bare / "ciapp/spool").glob("[!.]*") if file.is_file()]
        return not records and not changed_refs(refs, seen_refs(self._stage.database, repository.id))
