"""Refs that changed without a spool record: a hook that was lost, or a change by hand.

In:  a repository's refs, and their values as the ledger has last seen them; the dispatcher's clock.
Out: what is to be recorded as if it had been pushed; for who asks, the commits that are still to be recorded.

A push that is just going on has moved its refs and not yet written its record. So a ref must differ for a
while, always in the same way, before it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ciapp.git import Repository
from ciapp.intake.push import RefUpdate, changed_refs, new_commits
from ciapp.intake.recording import policy_of
from ciapp.results.database import Database, stored_text
from ciapp.results.pushes import KnownRepository, seen_refs
from ciapp.settings import Settings

SETTLE_S = 3.0  #: a ref must differ for so long before it counts as changed without a push


class Reconciliation:
    """One repository's refs, compared with the ledger now and then."""

    def __init__(self, settings: Settings, database: Database, repository: KnownRepository) -> None:
        self._settings = settings
        self._database = database
        self._repository = repository
        self._git = Repository(Path(repository.git_dir))
        self._looked_at_s = -settings.reconcile_s
        self._odd: dict[RefUpdate, float] = {}  # each that is not recorded → since when

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to look: sooner where something was odd the last time."""
        pause_s = SETTLE_S if self._odd else self._settings.reconcile_s
        return now_s - self._looked_at_s >= pause_s

    def find(self, now_s: float) -> tuple[RefUpdate, ...]:
        """The updates that nobody has recorded, nor will; by ref name."""
        self._looked_at_s = now_s
        seen = seen_refs(self._database, self._repository.id)
        found = _unseen_updates(self._settings, self._repository.name, self._git, seen)
        self._odd = {update: self._odd.get(update, now_s) for update in found}
        return tuple(one for one, at_s in self._odd.items() if now_s - at_s >= SETTLE_S)

    def note_recorded(self, update: RefUpdate) -> None:
        """The ledger has this one now."""
        self._odd.pop(update, None)


def commits_to_come(settings: Settings, database: Database, repository: KnownRepository) -> frozenset[str]:
    """Commits that were pushed and the ledger has yet to hear of; none where the repository is not here."""
    if repository.host != settings.host_name or not Path(repository.git_dir).is_dir():
        return frozenset()
    git = Repository(Path(repository.git_dir))
    seen = seen_refs(database, repository.id)
    updates = _unseen_updates(settings, repository.name, git, seen)
    return frozenset(commit.id for commit in new_commits(git, updates, seen.values()))


def _unseen_updates(
    settings: Settings, repository: str, git: Repository, seen: Mapping[str, str]
) -> list[RefUpdate]:
    """What leads from the values that the ledger has `seen` to those that refs have; by ref name."""
    current = {
        name: value for name, value in git.refs().items() if policy_of(settings, repository, name) != "off"
    }
    stored = {stored_text(name): name for name in current}
    return changed_refs(current, {stored.get(name, name): value for name, value in seen.items()})
