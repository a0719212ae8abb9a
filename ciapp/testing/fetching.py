"""git at work on a mirror, perhaps with a server that never answers: it ends as a whole, and in time.

In:  a repository, and a command of git's.
Out: nothing, once it is done; a GitError when git says no, or takes too long.

git starts helpers for the network (git-remote-https, ssh) and for what arrives (index-pack), which outlive it
when it is killed. They share a process group with it, so they are ended with it. Its environment, which they
inherit, has the mark of the slot, so the slot's sweeper ends them when the worker dies, however it dies. And
they hold the mirror's lock for as long as they live: nobody works on it beside what a dead worker has left.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ciapp.errors import GitError, StaleAttemptError
from ciapp.git import Repository, git_failure
from ciapp.testing.output import HeadTail

WITHIN_S = 3600.0
LOOK_EVERY_S = 0.1
COMPLAINT_HALF = 16 * 1024  #: bytes kept of a complaint's head, and of its tail
READ_BYTES = 1 << 16  #: all that a pipe holds


def run_git(
    repository: Repository,
    *words: str,
    environment: Mapping[str, str],
    lock: int,
    should_stop: Callable[[], bool],
) -> None:
    """Run git to its end. Raises GitError, or StaleAttemptError once it is to stop."""
    check_stop(should_stop)
    process = repository.start(*words, env=environment, pass_fds=(lock,), start_new_session=True)
    try:
        said = _watch(process, f"git {words[0]} in {repository.git_dir}", should_stop)
    finally:
        # Not reaped yet, so the number is still that of its group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.proc.wait()
        process.stderr.close()
    if status:
        raise git_failure(words, repository.git_dir, status=status, said=said)


def check_stop(should_stop: Callable[[], bool]) -> None:
    """Raise StaleAttemptError once nobody waits for the commit any more."""
    if should_stop():
        raise StaleAttemptError("the run was stopped while its commit was fetched")


def _watch(process: Any, what: str, should_stop: Callable[[], bool]) -> str:
    """Wait for git's end; what it complained of."""
    deadline_s = time.monotonic() + WITHIN_S
    complaint, stderr = HeadTail(COMPLAINT_HALF), process.stderr.fileno()
    os.set_blocking(stderr, False)
    ended = os.pidfd_open(process.pid)
    waiting = [ended, stderr]
    try:
        while True:
            ready = select.select(waiting, [], [], LOOK_EVERY_S)[0]
            if stderr in ready and not _take(stderr, complaint):
                waiting = [ended]
            if ended in ready:
                # Not until the end of what can be read: an ssh that keeps the connection keeps it open.
                _take(stderr, complaint)
                return complaint.text()
            if time.monotonic() > deadline_s:
                raise GitError(f"{what} took longer than {WITHIN_S:.0f} s")
            check_stop(should_stop)
    finally:
        os.close(ended)


def _take(stderr: int, complaint: HeadTail) -> bool:
    """Keep what was said until now; False once nobody can say more."""
    try:
        part = os.read(stderr, READ_BYTES)
    except BlockingIOError:
        return True
    complaint.add(part)
    return bool(part)
