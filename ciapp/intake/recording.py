"""From ref updates to ledger rows: the tips pinned, then push, commits and runs written, all or nothing.

In:  what a spool record, or the reconciliation, says that changed in a repository.
Out: rows for what is new and to be tested, as the settings ask for each ref; pins, which come before them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from ciapp.git import NULL_IDS, Commit, Repository
from ciapp.intake.matrix import Matrix
from ciapp.intake.pins import pin
from ciapp.intake.push import (
    RefUpdate,
    late_updates,
    logged_updates,
    lost_updates,
    new_commits,
    peeled_tags,
    tips,
    untestable,
)
from ciapp.results.database import Database, stored_text
from ciapp.results.pushes import KnownRepository, NewPush, Recorded, record_push, seen_refs
from ciapp.results.reruns import rerun_tested
from ciapp.settings import RefPolicy, Settings

logger = logging.getLogger(__name__)

SKIP_OPTION = "ci.skip"
FRESH_OPTION = "ci.fresh"  #: tests run for this push, whatever was found before
TELL_EVERY = 2500  #: commits of one push
REF_LIMIT = 1000  #: bytes of a name; PostgreSQL's index refuses one of 2,700, and git allows 4,000


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What changed in a repository at once."""

    record: str  #: its name, unique in the repository
    received_at: datetime
    updates: tuple[RefUpdate, ...]
    pusher: str = ""
    options: tuple[str, ...] = ()  #: of `git push -o`
    is_found: bool = False  #: by comparing refs, which had other values in between, for all we know


def policy_of(settings: Settings, repository: str, ref: str) -> RefPolicy:
    """What the settings ask for a ref; "off" for one whose name no database would take."""
    if len(ref.encode("utf-8", "surrogateescape")) > REF_LIMIT:
        return "off"
    return settings.ref_policy(repository, ref)


def record_change(
    settings: Settings, database: Database, repository: KnownRepository, change: Change
) -> Recorded:
    """Write what a change brought; recording it again changes nothing."""
    # What a ref that is off brought stays new: another ref may bring it again, to be tested.
    updates = [one for one in change.updates if policy_of(settings, repository.name, one.ref) != "off"]
    git = Repository(Path(repository.git_dir))
    all_seen = seen_refs(database, repository.id)
    seen = set(all_seen.values())
    seen_of = {one.ref: all_seen.get(stored_text(one.ref), "") for one in updates}
    late = late_updates(git, updates, seen_of)
    refs = {one.ref: one.new for one in updates}
    current = [one for one in updates if one not in late]
    now = tips(git, current)
    # Refs that have not come here straight from what was seen of them: hooks were lost.
    led = [one for one in current if change.is_found or seen_of[one.ref] != _as_seen(one.old)]
    lost = dict.fromkeys([*logged_updates(git, led, seen_of), *lost_updates(updates, seen)])
    updates = [*lost, *updates]
    tip_only = [one for one in updates if policy_of(settings, repository.name, one.ref) == "tip"]
    for ref, said in untestable(git, updates).items():
        logger.info("nothing to test", extra={"repo": repository.name, "ref": ref, "reason": said})
    named = tips(git, updates)
    pin(git, change.record, named)
    fresh = FRESH_OPTION in change.options and SKIP_OPTION not in change.options
    if fresh:
        # Before the push is in the ledger: twice, after a crash in between, does less harm than never.
        rerun_tested(database, repository.id, list(named))
    push = NewPush(
        record=change.record,
        received_at=change.received_at,
        pusher=change.pusher,
        options=change.options,
        refs=refs,
        peeled=peeled_tags(git, [one for one in current if one.new not in named]),
        tips=named,
        late=frozenset(one.ref for one in late),
        left=frozenset(named.keys() - now.keys()),
        tested=_tested(git, updates, tip_only, seen, change.options),
        environments=Matrix(settings, repository).environments,
        fresh=fresh,
        superseding=frozenset(one.ref for one in updates if settings.supersedes(repository.name, one.ref)),
    )
    return record_and_tell(database, repository, push, new_commits(git, updates, seen))


def _as_seen(value: str) -> str:
    """A ref's value as the ledger has it; empty where there is none."""
    return "" if value in NULL_IDS else value


def record_and_tell(
    database: Database, repository: KnownRepository, push: NewPush, commits: Iterable[Commit]
) -> Recorded:
    """`record_push`, with its progress and its end in the log."""
    started = time.monotonic()
    added = record_push(database, repository.id, push, _counted(commits, repository.name))
    fields = {
        "repo": repository.name,
        "refs": len(push.refs),
        "commits": added.commits,
        "runs": added.runs,
        "took_s": round(time.monotonic() - started, 3),
    }
    logger.info("push recorded", extra=fields)
    return added


def _tested(
    git: Repository,
    updates: Sequence[RefUpdate],
    tip_only: Sequence[RefUpdate],
    seen: Iterable[str],
    options: tuple[str, ...],
) -> frozenset[str] | None:
    """Which of the new commits are to be tested; None for all of them."""
    if SKIP_OPTION in options:
        return frozenset()
    if not tip_only:
        return None
    whole = [one for one in updates if one not in tip_only]
    reached = new_commits(git, whole, seen) if whole else ()
    return frozenset(tips(git, tip_only)) | {commit.id for commit in reached}


def _counted(commits: Iterable[Commit], repository: str) -> Iterator[Commit]:
    for number, commit in enumerate(commits, 1):
        yield commit
        if number % TELL_EVERY == 0:
            logger.info("push is being recorded", extra={"repo": repository, "commits": number})
