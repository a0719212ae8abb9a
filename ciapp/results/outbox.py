"""Reports that wait on a worker's disk while the database is away.

In:  a report and its run.
Out: the report in the ledger; until then a file in the outbox, which any process of this host may deliver.

Delivering twice is harmless (`ciapp.results.store.save_report`), so nobody needs to agree on who does it.
"""

from __future__ import annotations

import logging
import os
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ciapp.errors import LedgerAwayError, LedgerError
from ciapp.results.database import Database
from ciapp.results.report import Report
from ciapp.results.store import pack_report, save_report, unpack_report

logger = logging.getLogger(__name__)
INSIST_S = 60.0  #: how long a slot waits for the database: nothing could be claimed meanwhile anyway
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
REPORT = re.compile(r"(\d+)-(\d+)\.report")  #: run, attempt
DRAFT = re.compile(r"\d+-\d+\.(\d+)")  #: its writer's process; renamed when it is whole


class Outbox:
    """A folder of reports that have not reached the ledger yet."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database
        self._complaints: dict[Path, str] = {}  #: what was said of each file

    def deliver(self, run_id: int, report: Report) -> None:
        """Store a report; when the database is away, keep it on disk and go on trying for a while.

        What is not delivered when this returns waits for `deliver_waiting`.
        """
        if self._is_stored(run_id, report):
            return
        file = self._keep(run_id, report)
        pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + INSIST_S
        while time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if file is not None and not file.exists():  # another process of this host was quicker
                return
            if self._is_stored(run_id, report):
                if file is not None:
                    with self._attended(file):
                        file.unlink(missing_ok=True)
                return

    def waiting(self) -> set[tuple[int, int]]:
        """Run and attempt of each report that waits on this disk."""
        names = [REPORT.fullmatch(file.name) for file in self._files()]
        return {(int(name[1]), int(name[2])) for name in names if name}

    def deliver_waiting(self) -> int:
        """Store what waits on this disk; returns how many reports still wait.

        Trouble with one of them keeps no other waiting, but for a database that is away. Never raises.
        """
        left = 0
        files = self._files()
        for number, file in enumerate(files):
            try:
                left += not self._deliver_file(file)
            except LedgerAwayError:
                return left + len(files) - number
        return left

    def _files(self) -> list[Path]:
        """What waits, after the drafts of processes that were killed have gone."""
        try:
            entries = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        except OSError as error:
            self._complain(self._folder, error)
            return []
        for entry in entries:
            draft = DRAFT.fullmatch(entry.name)
            if draft and not Path(f"/proc/{draft[1]}").exists():
                with self._attended(entry):
                    entry.unlink(missing_ok=True)
        return [entry for entry in entries if entry.suffix == ".report"]

    def _deliver_file(self, file: Path) -> bool:
        """Whether a report waits no longer. Raises LedgerAwayError."""
        with self._attended(file):
            try:
                run_id, report = int(file.stem.split("-")[0]), unpack_report(file.read_bytes())
            except FileNotFoundError:  # another process of this host was quicker
                return True
            except (zlib.error, msgspec.MsgspecError, ValueError) as error:
                file.rename(file.with_suffix(".unreadable"))
                logger.error("waiting report unreadable", extra={"file": str(file), "error": str(error)})
                return True
            if self._store(run_id, report):
                file.unlink(missing_ok=True)
                return True
        return False

    @contextmanager
    def _attended(self, file: Path) -> Iterator[None]:
        """Trouble that the disk has with a file is said once, and ends nothing else."""
        try:
            yield
        except OSError as error:
            self._complain(file, error)

    def _complain(self, file: Path, error: OSError) -> None:
        if self._complaints.get(file) != str(error):
            self._complaints[file] = str(error)
            logger.error("outbox cannot be used", extra={"file": str(file), "error": error.strerror})

    def _is_stored(self, run_id: int, report: Report) -> bool:
        try:
            return self._store(run_id, report)
        except LedgerAwayError:
            return False

    def _store(self, run_id: int, report: Report) -> bool:
        """Whether the ledger has the report. Raises LedgerAwayError."""
        try:
            accepted = save_report(self._database, run_id, report)
        except LedgerError as error:
            logger.warning("report waits for the ledger", extra={"run_id": run_id, "error": str(error)})
            if isinstance(error, LedgerAwayError):
                raise
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
