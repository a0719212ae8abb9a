"""The lease on a run, kept by a thread while another does the testing.

In:  the attempt that holds it, and the progress that is told from time to time.
Out: a beat in the ledger each second; `is_lost` once the ledger says that the run is no longer this
     attempt's: it was cancelled, or given to another worker.

The thread only ever talks to the database: a database that hangs must not keep the tests' output from being
read, nor their time limits from being kept.
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from ciapp.errors import LedgerError
from ciapp.results.database import Database
from ciapp.results.runs import Run, beat_run

logger = logging.getLogger(__name__)
BEAT_EVERY_S = 1.0


class Lease:
    """A context in which a run is ours, as long as the ledger agrees."""

    def __init__(self, database: Database, run: Run) -> None:
        self._database = database
        self._run = run
        self._progress = (0, 0, 0)
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()

    @property
    def is_lost(self) -> bool:
        """Whether the ledger has taken the run from us."""
        return self._lost.is_set()

    def tell_progress(self, known: int, done: int, failed: int) -> None:
        """Remember how far the tests are, for the next beat; costs nothing."""
        self._progress = (known, done, failed)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_EVERY_S):
            known, done, failed = self._progress
            try:
                held = beat_run(
                    self._database,
                    self._run.id,
                    attempt=self._run.attempt,
                    known=known,
                    done=done,
                    failed=failed,
                )
            except LedgerError as error:
                logger.warning("beat not told", extra={"run_id": self._run.id, "error": str(error)})
                continue
            if not held and not self._ended.is_set():
                logger.warning("run taken away", extra={"run_id": self._run.id})
                self._lost.set()
                return
