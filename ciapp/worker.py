"""What a Celery worker does beside its tasks, however it was started.

In:  Celery's signals of the worker's life.
Out: the worker's row in the ledger, kept fresh; reports that waited on this disk delivered; temporary files
     of workers that were killed removed; a stop that ends in bounded time; and the runs that it could not
     finish given back at once, not when their leases end.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from celery import signals

from ciapp.celery import QUEUE, run_queue, settings
from ciapp.connection import end_if_refused
from ciapp.errors import CheckoutError, CiError, LedgerError
from ciapp.logs import Absence, FieldFormatter
from ciapp.lookout import Lookout
from ciapp.node import NodeName, take_name
from ciapp.results.database import Database
from ciapp.results.matrix import DEFAULT, environment_of
from ciapp.results.outbox import Outbox
from ciapp.results.runs import lose_attempt, running_runs
from ciapp.results.workers import BEAT_EVERY_S, Worker, worker_has_left, worker_is_here
from ciapp.testing.environment import default_python
from ciapp.testing.interpreters import find_interpreters
from ciapp.testing.room import Room
from ciapp.testing.sandbox import check_level, sandbox_level
from ciapp.testing.slot import slots_folder
from ciapp.testing.temporary import sweep_folders, use_own_folder

logger = logging.getLogger(__name__)
FINISH_WITHIN_S = 30.0  #: after SIGTERM; a run that takes longer goes to another worker


class Attendance(threading.Thread):
    """Tells the ledger that a worker is there, and delivers what waits on its disk."""

    def __init__(self, name: str, slots: int, environments: tuple[str, ...]) -> None:
        super().__init__(name="attendance", daemon=True)
        self._database = Database(settings.database)
        self._outbox = Outbox(settings.state_path / "outbox", self._database)
        self._stopped = threading.Event()
        self.lookout: Lookout | None = (
            None  #: None: it takes the queues that it was told to take, and no more
        )
        now = datetime.now(UTC)
        self._worker = Worker(
            name=name,
            host=settings.host_name,
            slots=slots,
            sandbox=sandbox_level(settings.sandbox),
            python=default_python().version,
            environments=environments,
            started_at=now,
            seen_at=now,
        )

    @property
    def started_at(self) -> datetime:
        """What tells this worker from others that had its name."""
        return self._worker.started_at

    def run(self) -> None:
        """Beat until stopped; what goes wrong is tried again at the next beat."""
        absence = Absence(logger)
        while not self._stopped.is_set():
            is_away = False
            for duty in (self._look_out, self._be_seen, self._outbox.deliver_waiting, self._sweep):
                try:
                    duty()
                except LedgerError as error:
                    is_away = True
                    absence.note("ledger", error)
                # The edge of a thread: if it ended, a worker that goes on testing would be seen no more, and
                # nothing be delivered. So nothing ends it, nor keeps it from its other duties.
                except Exception:
                    logger.exception("duty not done")
            if not is_away:
                absence.end()
            self._stopped.wait(BEAT_EVERY_S)

    def _look_out(self) -> None:
        """Notice the host's Pythons that have come or gone."""
        if self.lookout is not None:
            environments = self.lookout.environments()
            self._worker = msgspec.structs.replace(self._worker, environments=environments)

    def _be_seen(self) -> None:
        """Tell the ledger that the worker is there, and whether it takes runs."""
        self._database.migrate()
        folders = (settings.state_path, slots_folder(settings.state_path))
        room = Room(*(folder for folder in folders if folder.is_dir()))
        self._worker = msgspec.structs.replace(self._worker, hindrance=room.look())
        worker_is_here(self._database, self._worker)

    def _sweep(self) -> None:
        """Remove temporary files of workers that were killed."""
        with suppress(CheckoutError):  # a disk that cannot be written to is told where it matters
            sweep_folders(settings.state_path)

    def leave(self) -> None:
        """Stop, and give back what this worker still holds, unless its report waits on this disk.

        Whoever is next here delivers that; when nobody is, the run's lease ends.
        """
        self._stopped.set()
        self.join(BEAT_EVERY_S)
        self._outbox.deliver_waiting()
        try:
            worker_has_left(self._database, self._worker.name)
            tested = self._outbox.waiting()
            for run in running_runs(self._database):
                mine = run.worker.partition("#")[0] == self._worker.name
                if mine and (run.id, run.attempt) not in tested:
                    reason = f"worker {self._worker.name} was stopped"
                    lose_attempt(
                        self._database,
                        run.id,
                        attempt=run.attempt,
                        reason=reason,
                        tries=settings.attempts,
                        forgiven=True,
                    )
        except LedgerError as error:
            logger.warning("not signed off", extra={"error": str(error)})


_attendance: list[Attendance] = []
_node: list[NodeName] = []


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def start_only_where_it_can_work(sender: str, **_: Any) -> None:
    """End with a sentence where ledger or broker refuse us, tests cannot be held, or our name is taken.

    Later, Celery would take a SystemExit for its own, and the pool have temporary files outside our folder.
    """
    try:
        use_own_folder(settings.state_path)
        check_level(settings.sandbox, settings.state_path)
        Database(settings.database).migrate()
        end_if_refused(settings)
        _node.append(take_name(sender, settings.state_path, Database(settings.database)))
    except CiError as error:
        sys.stderr.write(f"ciapp: {error}\n")
        raise SystemExit(error.exit_code) from error


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def choose_queues(instance: Any, **_: Any) -> None:
    """Consume the runs of each Python of this host; of queues named by `-Q`, those that we can serve."""
    queues = instance.app.amqp.queues
    # Looked for before the pool is forked, whose processes then know.
    found = find_interpreters(settings)
    for complaint in found.complaints:
        logger.warning("python left out", extra={"reason": complaint})
    ours = _queues_by_environment()
    chosen = set(queues.consume_from)
    for environment, queue in ours.items():
        if queue.name in chosen or (chosen <= {QUEUE} and environment != DEFAULT):
            queues.select_add(queue)
    foreign = chosen - {queue.name for queue in ours.values()}
    if foreign:
        logger.error("queues not served", extra={"queues": sorted(foreign), "known": sorted(ours)})
        queues.deselect(foreign)


def _queues_by_environment() -> dict[str, Any]:
    """The environments whose runs this host can take, the default one first → their queues."""
    versions = find_interpreters(settings).interpreters
    environments = (DEFAULT, *map(environment_of, versions))
    return {environment: run_queue(settings, environment) for environment in environments}


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def begin_attendance(sender: Any, **_: Any) -> None:
    """The worker consumes: say that it is there."""
    consumed = sender.app.amqp.queues.consume_from
    taken = [environment for environment, queue in _queues_by_environment().items() if queue.name in consumed]
    attendance = Attendance(sender.hostname, sender.controller.concurrency, tuple(taken))
    if _queues_by_environment().keys() <= set(taken):
        attendance.lookout = Lookout(
            settings,
            lambda environment: sender.call_soon(_take_up, sender, environment),
            lambda environment: sender.call_soon(
                sender.cancel_task_queue, run_queue(settings, environment).name
            ),
        )
    for node in _node:
        node.remember(attendance.started_at)
    _attendance.append(attendance)
    attendance.start()
    # Celery has no signal for the end of a worker that was told by SIGQUIT to be quick.
    atexit.register(_end_own_attendance, os.getpid())


def _take_up(consumer: Any, environment: str) -> None:
    """Consume one queue more, now and after each reconnection."""
    queue = run_queue(settings, environment)
    consumer.app.amqp.queues.select_add(queue)
    consumer.add_task_queue(queue.name)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def bound_shutdown(how: str, **_: Any) -> None:
    """Let tests in flight finish for a while after SIGTERM, then stop all the same.

    Celery's own soft shutdown sleeps for its whole time even when the tasks end sooner.
    """
    if how == "Warm":
        patience = threading.Timer(FINISH_WITHIN_S, os.kill, (os.getpid(), signal.SIGQUIT))
        patience.daemon = True
        patience.start()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def end_attendance(**_: Any) -> None:
    """The worker's pool has stopped: sign off."""
    while _attendance:
        _attendance.pop().leave()


def _end_own_attendance(main: int) -> None:
    if os.getpid() == main:
        end_attendance()


@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]
def show_fields(logger: logging.Logger, **_: Any) -> None:
    """Give Celery's log lines the form of ours, and leave out those that say what ours say."""
    for handler in logger.handlers:
        handler.setFormatter(FieldFormatter())
    if logger.level == logging.INFO:
        for name in ("celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(name).setLevel(logging.WARNING)
