"""What cannot be done for a repository: said once, tried again, and nobody else's concern.

In:  steps of the dispatcher, each for one repository, or for one push to it.
Out: an error in the log for each trouble that is new; whether it is time to try a step again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ciapp.errors import GitError, LedgerError
from ciapp.results.database import Database
from ciapp.results.pushes import KnownRepository

logger = logging.getLogger(__name__)
AGAIN_AFTER_S, AGAIN_AT_MOST_S = 1.0, 30.0  #: the first time at once, then doubled each time


class Troubles:
    """What went wrong in each repository, and has not gone right since."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._known: defaultdict[int, dict[str, str]] = defaultdict(dict)  # repository → step → error
        self._again: dict[tuple[int, str], tuple[float, float]] = {}  # step → when it is due, then the pause

    def is_due(self, repository: KnownRepository, step: str) -> bool:
        """Whether to try a step: what fails again and again is tried ever more rarely."""
        due_at_s, _ = self._again.get((repository.id, step), (0.0, 0.0))
        return self._clock() >= due_at_s

    @contextmanager
    def contained(self, repository: KnownRepository, step: str) -> Iterator[None]:
        """Let no trouble out of this block. Raises LedgerError when the ledger itself is away."""
        try:
            yield
        except (GitError, OSError, LedgerError) as error:
            # Raises when the ledger itself is away, not just unwilling to take what this one brings.
            self._database.revision()
            self._note(repository, step, str(error))
        except Exception as error:
            # An edge like a task's: here somebody else's data begins, and a fault of ours that one repository
            # brings out would end the dispatcher for all of the host, at each start again.
            self._note(repository, step, f"{type(error).__name__}: {error}", error)
        else:
            self.forget(repository, step)

    def forget(self, repository: KnownRepository, step: str) -> None:
        """The step has gone right."""
        self._known[repository.id].pop(step, None)
        self._again.pop((repository.id, step), None)

    def _note(
        self, repository: KnownRepository, step: str, error: str, fault: Exception | None = None
    ) -> None:
        """Say it, with a traceback if the fault is ours, unless it was said, be it of another step."""
        known = self._known[repository.id]
        if error not in known.values():
            fields = {"repo": repository.name, "step": step, "error": error}
            logger.error("repository cannot be served", extra=fields, exc_info=fault)
        known[step] = error
        _, pause_s = self._again.get((repository.id, step), (0.0, 0.0))
        longer_s = min(max(AGAIN_AFTER_S, 2 * pause_s), AGAIN_AT_MOST_S)
        self._again[repository.id, step] = (self._clock() + pause_s, longer_s)
