"""Several clones push at once, as planned; each push has a twin to a repository without a hook.

In:  the plan and its commits.
Out: for each push how it ended and how long it took, and how long its twin took next to it.

Faults that strike when all has been tested would prove nothing. So pushes wait for faults as much as for
their time: however long those take on a loaded machine, there is something to strike until the last.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tests.drill.history import annotated_tags, make_clone
from tests.drill.plan import Plan, PlannedPush, Update
from tests.drill.stage import REPOSITORY, TWIN, Stage

PUSH_WITHIN_S = 60.0
AHEAD = 0.1  #: how much larger the share of pushes may be that were made than that of faults that have begun
LOOK_EVERY_S = 0.05
#: Stands before the programs that the hook calls; kills the hook where the plan says so.
SHIM = """#!/bin/sh
name=${0##*/}
PATH=$DRILL_PATH
case $DRILL_HOOK_DIES in
"$name before") kill -9 "$PPID" ;;
"$name after") "$name" "$@"; kill -9 "$PPID" ;;
*) exec "$name" "$@" ;;
esac
"""


class PushSample(msgspec.Struct, frozen=True):
    """How one push went."""

    at_s: float  #: since the start of the drill
    took_s: float
    twin_s: float  #: the same push to a repository without a hook, just before or after
    error: str  #: empty when it succeeded


class Pushers:
    """The clones, each pushing in a thread of its own."""

    def __init__(self, stage: Stage, plan: Plan, commits: Mapping[int, str]) -> None:
        self.samples: list[PushSample] = []
        self.hooks_killed = 0
        self._stage = stage
        self._commits = commits
        self._tags = annotated_tags(stage.ci)
        self._shims = self._make_shims(stage.ci.folder / "shims")
        remotes = {REPOSITORY: stage.bare, TWIN: stage.twin}
        self._last_at_s = plan.pushes[-1].at_s or 1.0
        clones = sorted({push.clone for push in plan.pushes})
        self._threads = [
            threading.Thread(
                target=self._push_all,
                args=(
                    make_clone(stage.ci, f"clone-{clone}", remotes),
                    [push for push in plan.pushes if push.clone == clone],
                ),
                daemon=True,
            )
            for clone in clones
        ]

    def start(self, share_begun: Callable[[], float]) -> None:
        """Begin to push. `share_begun` tells how many of all faults have begun."""
        self._share_begun = share_begun
        self._started_s = time.monotonic()
        for thread in self._threads:
            thread.start()

    def are_busy(self) -> bool:
        """Whether pushes are still to come."""
        return any(thread.is_alive() for thread in self._threads)

    def _push_all(self, clone: Path, pushes: list[PlannedPush]) -> None:
        for number, push in enumerate(pushes):
            time.sleep(max(0.0, self._started_s + push.at_s - time.monotonic()))
            while push.at_s / self._last_at_s > self._share_begun() + AHEAD:
                time.sleep(LOOK_EVERY_S)
            at_s = time.monotonic() - self._started_s
            took_s = {}
            error = ""
            for remote in (REPOSITORY, TWIN)[:: 1 if number % 2 else -1]:
                with self._stage.pushes:
                    started_s = time.monotonic()
                    said = self._push(clone, remote, push)
                    took_s[remote] = time.monotonic() - started_s
                if said and remote == REPOSITORY:
                    error = said
            self.samples.append(PushSample(at_s, took_s[REPOSITORY], took_s[TWIN], error))

    def _push(self, clone: Path, remote: str, push: PlannedPush) -> str:
        """Push; the complaint when that failed."""
        environment = dict(self._stage.ci.environment)
        if push.hook_dies and remote == REPOSITORY:
            self.hooks_killed += 1
            path = environment["PATH"]
            environment |= {
                "DRILL_PATH": path,
                "DRILL_HOOK_DIES": push.hook_dies,
                "PATH": f"{self._shims}:{path}",
            }
        try:
            done = subprocess.run(
                ["git", "push", "--quiet", remote, *(self._refspec(one) for one in push.updates)],
                cwd=clone,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PUSH_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it took longer than {PUSH_WITHIN_S:g} s"
        return done.stderr.decode(errors="replace").strip() if done.returncode else ""

    def _refspec(self, update: Update) -> str:
        if update.commit is None:
            return f":{update.ref}"
        source = self._tags[update.commit] if update.is_annotated else self._commits[update.commit]
        return f"{'+' if update.is_forced else ''}{source}:{update.ref}"

    @staticmethod
    def _make_shims(folder: Path) -> Path:
        folder.mkdir()
        for program in ("dd", "mv"):
            (folder / program).write_text(SHIM)
            (folder / program).chmod(0o755)
        return folder
