"""What befalls the repository of a drill for a while: it vanishes, or objects in it are damaged.

In:  a stage.
Out: a repository that is as it was, once the fault is over; a note that says who felt it.

git refuses pushes to a repository that is away or damaged: so nobody pushes meanwhile. Dispatcher and workers
go on, and feel it where they need what cannot be had. Therefore a fault strikes, if it can, just after a push
that no worker has fetched yet, be it recorded or not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ciapp.git import Repository
from ciapp.results.report import State
from tests.drill.plan import USUAL_S, PlannedFault
from tests.drill.stage import REPOSITORY, Stage
from tests.drill.striking import NothingToStrikeError

LACKS_WITHIN_S = 5.0  #: workers a commit that was pushed; there may be none any more
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
        with self._unfetched(fault) as lacking, moved(self._stage.bare, self._aside):
            self._last(fault, lacking)

    def _damage_object(self, fault: PlannedFault) -> None:
        """A commit that is to be fetched, or a tree or file of one."""
        with self._unfetched(fault) as lacking:
            files = [file for file in map(self._loose_file, self._objects_of(lacking)) if file.is_file()]
            if not files:
                raise NothingToStrikeError("what is to be fetched is in packs")
            with damaged(files[fault.victim % len(files)], self._aside, fault.victim):
                self._last(fault, lacking)

    def _damage_pack(self, fault: PlannedFault) -> None:
        """The latest, which has what waits; or it cannot be opened, as on a file system that is away."""
        with self._unfetched(fault) as lacking:
            self._git.run("repack", "--quiet", "-d")
            packs = (self._stage.bare / "objects/pack").glob("*.pack")
            latest = max(packs, key=lambda file: file.stat().st_mtime_ns, default=None)
            if latest is None:
                raise NothingToStrikeError("there is no pack")
            with (moved if fault.victim % 2 else damaged)(latest, self._aside, fault.victim):
                self._last(fault, lacking)

    def _last(self, fault: PlannedFault, lacking: set[str]) -> None:
        """As long as planned; and, where commits are to be fetched, until a worker has tried in vain."""
        before = {run.id: run.attempt for run in self._stage.seen.runs}
        time.sleep(fault.lasts_s)
        until_s = time.monotonic() + (FELT_WITHIN_S if lacking else 0)
        while not (felt := self._felt(before)) and time.monotonic() < until_s:
            time.sleep(LOOK_EVERY_S)
        self._stage.notes.append(
            f"{fault.kind}: {len(lacking)} commits were to be fetched, felt by {felt} runs at once"
        )

    def _felt(self, before: Mapping[int, int]) -> int:
        """How many runs wait as their commit could not be fetched in a later attempt than `before`."""
        waiting = [run for run in self._stage.seen.runs if run.state is State.QUEUED]
        return sum(FELT in run.reason and run.attempt > before.get(run.id, 0) for run in waiting)

    @contextmanager
    def _unfetched(self, fault: PlannedFault) -> Iterator[set[str]]:
        """A block in which nobody pushes; commits that no worker has fetched yet, if there are any.

        Nor do people give commands: whether a commit can be asked for again, nobody can tell meanwhile.
        """
        if fault.lasts_s > USUAL_S:
            self._stage.is_updated.wait()  # older workers count each attempt that cannot fetch
        until_s = time.monotonic() + LACKS_WITHIN_S
        while True:
            is_last = time.monotonic() > until_s
            if is_last or self._lacking():
                with ExitStack() as alone:
                    # To wait for a command would be to come too late.
                    if self._stage.terminals.acquire(blocking=is_last):
                        alone.callback(self._stage.terminals.release)
                        alone.enter_context(self._stage.no_pushes())
                        lacking = self._lacking()
                        if is_last or lacking:
                            yield lacking
                            return
            time.sleep(LOOK_EVERY_S)

    def _lacking(self) -> set[str]:
        """What branches and tags reach, and no host of workers has."""
        found = set(self._git.run("rev-list", "--branches", "--tags").split())
        for state in self._stage.states():
            mirror = state / f"mirrors/{REPOSITORY}.git"
            if mirror.is_dir():
                found -= set(Repository(mirror).run("rev-list", "--all").split())
        return found

    def _objects_of(self, commits: set[str]) -> list[str]:
        if not commits:
            raise NothingToStrikeError("workers have all commits")
        listed = self._git.run("rev-list", "--objects", "--no-walk", *sorted(commits))
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
