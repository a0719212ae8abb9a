"""What befalls the repository of a drill for a while: it vanishes, or objects in it are damaged.

In:  a stage.
Out: a repository that is as it was, once the fault is over; a note that says who felt it.

git refuses pushes to a repository that is away or damaged: so nobody pushes meanwhile. Dispatcher and workers
go on, and feel it where they need what cannot be had. Therefore a fault strikes, if it can, while a commit
waits that a host of workers has not fetched yet.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ciapp.git import Repository
from ciapp.results.report import State
from ciapp.results.runs import Run
from tests.drill.plan import USUAL_S, PlannedFault
from tests.drill.stage import REPOSITORY, Stage
from tests.drill.striking import NothingToStrikeError

LACKS_WITHIN_S = 20.0  #: a host a commit that waits; there may be none
FELT_WITHIN_S = 20.0  #: more than planned, until a worker comes across it
FELT = "cannot be fetched"
LOOK_EVERY_S = 0.1
SPOILED = 64  #: bytes at most, in the middle of a file


class Damaging:
    """Takes away what git needs, and gives it back."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._git = Repository(stage.bare)
        self._aside = stage.ci.folder / "aside"
        self.strikes: dict[str, Callable[[PlannedFault], None]] = {
            "repository away": self._move_away,
            "object damaged": self._damage_object,
            "pack damaged": self._damage_pack,
        }

    def _move_away(self, fault: PlannedFault) -> None:
        with self._unfetched(fault) as waiting, moved(self._stage.bare, self._aside):
            self._last(fault, waiting)

    def _damage_object(self, fault: PlannedFault) -> None:
        """A commit that waits, or a tree or file of one."""
        with self._unfetched(fault) as waiting:
            files = [file for file in map(self._loose_file, self._objects_of(waiting)) if file.is_file()]
            if not files:
                raise NothingToStrikeError("what waits is in packs")
            with damaged(files[fault.victim % len(files)], self._aside, fault.victim):
                self._last(fault, waiting)

    def _damage_pack(self, fault: PlannedFault) -> None:
        """The latest, which has what waits; or it cannot be opened, as on a file system that is away."""
        with self._unfetched(fault) as waiting:
            self._git.run("repack", "--quiet", "-d")
            packs = (self._stage.bare / "objects/pack").glob("*.pack")
            latest = max(packs, key=lambda file: file.stat().st_mtime_ns, default=None)
            if latest is None:
                raise NothingToStrikeError("there is no pack")
            with (moved if fault.victim % 2 else damaged)(latest, self._aside, fault.victim):
                self._last(fault, waiting)

    def _last(self, fault: PlannedFault, waiting: list[Run]) -> None:
        """As long as planned, and until a worker could not fetch the commit of one of these, if any tries."""
        ids = {run.id for run in waiting}
        before = {run.id: run.attempt for run in self._stage.seen.runs}
        time.sleep(fault.lasts_s)
        until_s = time.monotonic() + FELT_WITHIN_S
        while True:
            now = [run for run in self._waiting() if run.id in ids]
            felt = sum(FELT in run.reason and run.attempt > before.get(run.id, 0) for run in now)
            if felt or not ids or time.monotonic() > until_s:
                break
            time.sleep(LOOK_EVERY_S)
        self._stage.notes.append(
            f"{fault.kind}: of {len(ids)} commits that waited, {felt} could not be fetched"
        )

    @contextmanager
    def _unfetched(self, fault: PlannedFault) -> Iterator[list[Run]]:
        """A block in which nobody pushes; runs that wait in it, if any those whose commit some host lacks.

        Nor do people give commands: whether a commit can be asked for again, nobody can tell meanwhile.
        """
        if fault.lasts_s > USUAL_S:
            self._stage.is_updated.wait()  # older workers count each attempt that cannot fetch
        until_s = time.monotonic() + LACKS_WITHIN_S
        while True:
            lacking = self._lacking()
            if lacking or time.monotonic() > until_s:
                with ExitStack() as alone:
                    alone.enter_context(self._stage.terminals)
                    alone.enter_context(self._stage.no_pushes())
                    lacking = self._lacking()
                    if lacking or time.monotonic() > until_s:
                        yield lacking or self._waiting()
                        return
            time.sleep(LOOK_EVERY_S)

    def _waiting(self) -> list[Run]:
        return [run for run in self._stage.seen.runs if run.state is State.QUEUED]

    def _lacking(self) -> list[Run]:
        """Those that wait, and whose commit not every host has."""
        mirrors = [state / f"mirrors/{REPOSITORY}.git" for state in self._stage.states()]
        known = [
            set(Repository(mirror).run("rev-list", "--all").split()) for mirror in mirrors if mirror.is_dir()
        ]
        return [run for run in self._waiting() if not all(run.commit in each for each in known)]

    def _objects_of(self, waiting: list[Run]) -> list[str]:
        if not waiting:
            raise NothingToStrikeError("no commit waits")
        listed = self._git.run("rev-list", "--objects", "--no-walk", *(run.commit for run in waiting))
        return [line.split()[0] for line in listed.splitlines()]

    def _loose_file(self, name: str) -> Path:
        return self._stage.bare / "objects" / name[:2] / name[2:]


@contextmanager
def moved(path: Path, aside: Path, _victim: int = 0) -> Iterator[None]:
    """A block in which a file or folder is not where it belongs."""
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def damaged(file: Path, aside: Path, victim: int) -> Iterator[None]:
    """A block in which a file is empty, cut off in the middle, or has other bytes there."""
    shutil.copy2(file, aside)
    whole = file.read_bytes()
    middle = len(whole) // 2
    other = bytes(byte ^ 0xFF for byte in whole[middle : middle + SPOILED])
    content = (b"", whole[:middle], whole[:middle] + other + whole[middle + SPOILED :])[victim % 3]
    # Another file takes its place each time: who reads it just now reads on in the one that was opened.
    spoiled = aside.with_suffix(".spoiled")
    spoiled.write_bytes(content)
    shutil.copystat(aside, spoiled)
    spoiled.replace(file)
    try:
        yield
    finally:
        aside.replace(file)
