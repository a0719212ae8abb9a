"""git in a sandbox that is kept, to move one work tree from commit to commit.

In:  a sandbox that shows the work tree and its git directory; then commit after commit.
Out: the work tree holds the commit, or git's complaint.

To set up a sandbox takes longer than git itself does. Into this one no code of a commit ever comes: tests run
in others, whose processes cannot see what is in it. So it may live as long as its slot is held. It is ended
all the same by a commit that git fails on, and when a folder that it shows has been replaced by another.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from ciapp.errors import SandboxError
from ciapp.settings import Limits
from ciapp.testing.bubblewrap import Bubblewrap
from ciapp.testing.output import HeadTail
from ciapp.testing.slot import Slot

MOVES_WITHIN_S = 1800.0
LOOK_EVERY_S = 0.25
ENDS_WITHIN_S = 10.0
KEPT = 4  #: movers of one slot: those of the work trees that it moved last
COMPLAINT_HALF = 16 * 1024  #: bytes kept of a complaint's head, and of its tail
READ_BYTES = 1 << 16
MOVE = 'git read-tree -u --reset "$1" && git clean -ffdxq'  #: in a folder that was swept
SERVE = f'move() {{ {MOVE}; }}; while read -r commit; do move "$commit" </dev/null >&2; echo $?; done'

Inodes = tuple[tuple[int, int], ...]  #: device and number of each folder


class Mover:
    """A shell in a sandbox, which starts git when it is told to."""

    def __init__(self, sandbox: Bubblewrap, environment: Mapping[str, str], shown: Inodes) -> None:
        """`shown` are the folders that the sandbox shows. Raises SandboxError when it cannot be set up."""
        self._shown = shown
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        self._complaints, complaints = os.pipe()
        try:
            self._process = sandbox.start(
                ["sh", "-c", SERVE],
                environment=environment,
                stdin=requests,
                stdout=answers,
                stderr=complaints,
            )
        except BaseException:
            self._close_pipes()
            raise
        finally:
            for descriptor in (requests, answers, complaints):
                os.close(descriptor)
        os.set_blocking(self._complaints, False)

    def move(self, commit: str) -> str:
        """What went wrong, empty when nothing did; after that, the mover is of no use any more.

        Raises SandboxError when somebody ends it from outside.
        """
        with suppress(BrokenPipeError):  # it has ended, and there will be no answer
            os.write(self._requests, f"{commit}\n".encode("ascii"))
        complaint = HeadTail(COMPLAINT_HALF)
        answer, breach = self._await_answer(complaint)
        if breach:
            return breach
        self._take_complaints(complaint)
        status = int(answer) if answer.endswith(b"\n") else self._process.wait(ENDS_WITHIN_S)
        return (telling_line(complaint.text()) or f"git ended with status {status}") if status != 0 else ""

    def is_of_use(self, shown: Inodes) -> bool:
        """Whether it still shows these folders, and nobody has ended it."""
        try:
            return self._shown == shown and self._process.poll() is None
        except SandboxError:
            return False

    def close(self) -> None:
        """End the sandbox, with whatever still runs there."""
        self._process.kill()
        self._close_pipes()

    def _await_answer(self, complaint: HeadTail) -> tuple[bytes, str]:
        """The line that tells git's exit status, not whole if the shell died; and a limit that was broken."""
        deadline_s = time.monotonic() + MOVES_WITHIN_S
        answer, waiting = b"", [self._answers, self._complaints]
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select(waiting, [], [], LOOK_EVERY_S)
            if self._complaints in ready and not self._take_complaints(complaint):
                waiting = [self._answers]
            if self._answers in ready:
                part = os.read(self._answers, READ_BYTES)
                if not part:
                    break
                answer += part
            elif not ready and (breach := self._process.breach()):
                return b"", breach
            elif time.monotonic() > deadline_s:
                return b"", f"git needs more than {MOVES_WITHIN_S:.0f} s"
        return answer, ""

    def _take_complaints(self, complaint: HeadTail) -> bool:
        """Keep what git has said until now; False once nobody can say more."""
        try:
            while part := os.read(self._complaints, READ_BYTES):
                complaint.add(part)
        except BlockingIOError:
            return True
        return False

    def _close_pipes(self) -> None:
        for descriptor in (self._requests, self._answers, self._complaints):
            os.close(descriptor)


#: Of one slot, by work tree and limits; the one used last comes last.
Movers = dict[tuple[Path, Limits], Mover]
_movers: WeakKeyDictionary[Slot, Movers] = WeakKeyDictionary()


def move(
    slot: Slot,
    path: Path,
    commit: str,
    *,
    folders: Iterable[Path],
    limits: Limits,
    sandbox: Bubblewrap,
    environment: Mapping[str, str],
) -> str:
    """Move the slot's work tree at `path`; what went wrong, empty when nothing did.

    Unless one is kept that shows the same `folders` under the same limits, `sandbox` is set up, with git's
    variables in it. Raises SandboxError when that fails, or somebody ends that one too.
    """
    shown = tuple((facts.st_dev, facts.st_ino) for facts in map(os.stat, folders))
    kept = _movers.get(slot)
    if kept is None:
        kept = _movers[slot] = {}
        slot.at_release(lambda: end_movers(slot))
    mover = kept.pop((path, limits), None)
    if mover is not None and mover.is_of_use(shown):
        with suppress(SandboxError):  # somebody has ended it since; git can begin again
            return _ask(mover, commit, kept, (path, limits))
    elif mover is not None:
        mover.close()
    return _ask(Mover(sandbox, environment, shown), commit, kept, (path, limits))


def _ask(mover: Mover, commit: str, kept: Movers, key: tuple[Path, Limits]) -> str:
    """Have it move the work tree; it is kept, as the one used last, if nothing went wrong."""
    said = "not asked yet"
    try:
        said = mover.move(commit)
    finally:
        if said:
            mover.close()
    if not said:
        kept[key] = mover
    if len(kept) > KEPT:
        kept.pop(next(iter(kept))).close()
    return said


def end_movers(slot: Slot) -> None:
    """End what serves a slot."""
    for mover in _movers.pop(slot, {}).values():
        mover.close()


def telling_line(complaint: str) -> str:
    """The line of a complaint that says most: git's last words may be advice."""
    lines = [line for line in complaint.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (telling or lines or [""])[-1].strip()
