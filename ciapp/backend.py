"""The Celery result backend: a task's state and its report are the ledger's rows, written at once.

In:  what Celery says of a task: started, succeeded with a report, or failed.
Out: the run finished with its report, or its attempt lost, in one transaction; and, for whoever asks by
     task id, the state and the report as plain JSON types.

No table of Celery's is needed: a task id names a run and an attempt, and the ledger knows what became of
both. A report that cannot be stored, because the database is away, waits on the worker's disk
(`ciapp.results.outbox`).
"""

from __future__ import annotations

import logging
from typing import Any

from celery import states
from celery.backends.base import BaseBackend

from ciapp.errors import FetchError, LedgerError
from ciapp.results.attempts import REPORTED, list_attempts
from ciapp.results.database import Database
from ciapp.results.outbox import Outbox
from ciapp.results.report import from_json_types, to_json_types
from ciapp.results.runs import lose_attempt, parse_task_id
from ciapp.results.store import load_report
from ciapp.settings import load_settings

logger = logging.getLogger(__name__)


class LedgerBackend(BaseBackend):  # type: ignore[misc]
    """Celery's view of the ledger."""

    def __init__(self, app: Any, url: str | None = None, **options: Any) -> None:
        super().__init__(app, url=url, **options)
        self._settings = load_settings()
        self._database = Database(self._settings.database)
        self._outbox = Outbox(self._settings.state_path / "outbox", self._database)

    def as_uri(self, include_password: bool = False) -> str:
        """The database, as the worker's banner shows it: never with its password."""
        return self._database.address

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **options: Any,
    ) -> Any:
        """Never raises: Celery would take an exception here for the task's own failure."""
        named = parse_task_id(task_id)
        if named is None:
            return result
        run_id, attempt = named
        if state == states.SUCCESS and result is not None:
            self._outbox.deliver(run_id, from_json_types(result))
        elif state in states.EXCEPTION_STATES:
            self._lose(run_id, attempt, _sentence(result), away=_kind(result) == FetchError.__name__)
        return result

    def _lose(self, run_id: int, attempt: int, reason: str, *, away: bool) -> None:
        tries = self._settings.attempts
        try:
            if lose_attempt(self._database, run_id, attempt=attempt, reason=reason, tries=tries, away=away):
                logger.warning("attempt lost", extra={"run_id": run_id, "attempt": attempt, "reason": reason})
        except LedgerError as error:
            # Its lease ends without us, and the dispatcher queues it again.
            logger.warning("lost attempt not noted", extra={"run_id": run_id, "error": str(error)})

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "task_id": task_id,
            "status": states.PENDING,
            "result": None,
            "traceback": None,
            "children": [],
            "date_done": None,
        }
        named = parse_task_id(task_id)
        if named is None:
            return meta
        run_id, number = named
        attempt = next((one for one in list_attempts(self._database, run_id) if one.number == number), None)
        if attempt is None:
            return meta
        if attempt.ending == REPORTED and (report := load_report(self._database, run_id, number)):
            return meta | {
                "status": states.SUCCESS,
                "result": to_json_types(report),
                "date_done": attempt.ended_at,
            }
        if not attempt.ending:
            return meta | {"status": states.STARTED, "result": {"hostname": attempt.worker}}
        lost = {"exc_type": "AttemptLostError", "exc_message": [attempt.ending], "exc_module": "ciapp.errors"}
        return meta | {"status": states.FAILURE, "result": lost, "date_done": attempt.ended_at}

    def _forget(self, task_id: str) -> None:
        """The ledger keeps what it knows; see its retention."""

    def cleanup(self) -> None:
        """The ledger has a retention of its own."""


def _kind(failure: Any) -> str:
    """The name of a task's exception, from Celery's description of it."""
    return str(failure.get("exc_type")) if isinstance(failure, dict) else type(failure).__name__


def _sentence(failure: Any) -> str:
    """Why a task failed, from Celery's description of its exception."""
    said = failure.get("exc_message") if isinstance(failure, dict) else failure
    parts = said if isinstance(said, list | tuple) else [said]
    return " ".join(str(part) for part in parts) or "it failed without a word"
