"""Reports that wait on a worker's disk while the database is away.

In:  a report and its run.
Out: the report in the ledger; until then a file in the outbox, which any process of this host may deliver.

Delivering twice is harmless (`ciapp.results.store.save_report`), so nobody needs to agree on who does it.
"""

from __future__ import annotations

import logging
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec

from ciapp.errors import LedgerError
from ciapp.results.database import Database
from ciapp.results.report import Report
from ciapp.results.store import pack_report, save_report, unpack_report

logger = logging.getLogger(__name__)
INSIST_S = 60.0  #: how long a slot waits for the database: nothing could be claimed meanwhile anyway
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Outbox:
    """A folder of reports that have not reached the ledger yet."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database

    def deliver(self, run_id: int, report: Report) -> None:
        """Store a report; when the database is away, keep it on disk and go on trying for a while.

        What is not delivered when this returns waits for `deliver_waiting`.
        """
        if self._store(run_id, report):
            return
        file = self._keep(run_id, report)
        pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + INSIST_S
        while time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if file is not None and not file.exists():  # another process of this host was quicker
                return
            if self._store(run_id, report):
                if file is not None:
                    file.unlink(missing_ok=True)
                return

    def deliver_waiting(self) -> int:
        """Store what waits on this disk; returns how many reports still wait."""
        waiting = sorted(self._folder.glob("*.report")) if self._folder.is_dir() else []
        for number, file in enumerate(waiting):
            try:
                run_id, report = int(file.stem.split("-")[0]), unpack_report(file.read_bytes())
            except FileNotFoundError:
                continue
            except (zlib.error, msgspec.MsgspecError, ValueError) as error:
                file.rename(file.with_suffix(".unreadable"))
                logger.error("waiting report unreadable", extra={"file": str(file), "error": str(error)})
                continue
            if not self._store(run_id, report):
                return len(waiting) - number
            file.unlink(missing_ok=True)
        return 0

    def _store(self, run_id: int, report: Report) -> bool:
        try:
            accepted = save_report(self._database, run_id, report)
        except LedgerError as error:
            logger.warning("report waits for the ledger", extra={"run_id": run_id, "error": str(error)})
            return False
        if accepted:
            fields = {
                "repo": report.repo,
                "commit": report.commit[:12],
                "run_id": run_id,
                "status": report.status.value,
                "duration_s": round(report.duration_s, 3),
            }
            logger.info("run finished", extra=fields)
        else:
            fields = {"run_id": run_id, "attempt": report.attempt}
            logger.warning("report came too late, kept as evidence", extra=fields)
        return True

    def _keep(self, run_id: int, report: Report) -> Path | None:
        """Put a report on the disk; None when that fails: it is not to be lost while we can still try."""
        file = self._folder / f"{run_id}-{report.attempt}.report"
        draft = file.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with draft.open("wb") as out:
                out.write(pack_report(report))
                out.flush()
                os.fsync(out.fileno())
            draft.rename(file)
        except OSError as error:
            fields = {"run_id": run_id, "file": str(file), "error": error.strerror}
            logger.error("report cannot be kept on disk", extra=fields)
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            return None
        return file
