"""The Celery application, which `celery -A ciapp` finds, and its settings with a reason each.

The ledger decides what is tested, and by whom; a message only wakes a worker up (`ciapp.results.runs`). So
everything by which Celery would run a task again on its own is off, and redelivery by a broker is harmless.
"""

# mypy: disable-error-code="no-untyped-call"
# kombu says that it is typed; most of its functions are not.

from __future__ import annotations

import importlib
import os
import sys
import warnings

from celery import Celery
from celery.platforms import SecurityWarning
from kombu.entity import Exchange, Queue

from ciapp.connection import broker_options
from ciapp.errors import SettingsError
from ciapp.results.matrix import DEFAULT
from ciapp.settings import Settings, load_settings

QUEUE = "ciapp"
DELIVERY_LIMIT = (
    20  #: a quorum queue drops a message that ended so many workers; the ledger knows long before
)


def run_queue(settings: Settings, environment: str = DEFAULT) -> Queue:
    """The queue of an environment's runs; on RabbitMQ a quorum queue, which outlives a node."""
    name = QUEUE if environment == DEFAULT else f"{QUEUE}.{environment}"
    arguments = {}
    if settings.broker_url.startswith(("amqp", "pyamqp")):
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    return Queue(name, Exchange(QUEUE), routing_key=name, queue_arguments=arguments)


def make_app(settings: Settings) -> Celery:
    """The application for these settings."""
    app = Celery("ciapp", include=["ciapp.tasks", "ciapp.worker"])
    app.conf.update(
        broker_url=settings.broker_url,
        broker_transport_options=broker_options(settings),
        broker_connection_retry_on_startup=True,  # a worker that starts before its broker waits for it
        broker_connection_max_retries=None,  # for as long as it takes
        result_backend="ciapp.backend:LedgerBackend",
        result_expires=None,  # the ledger has a retention of its own
        task_queues=[run_queue(settings)],  # a worker adds those of its Pythons: ciapp.worker
        task_default_queue=QUEUE,
        task_default_exchange=QUEUE,
        task_default_routing_key=QUEUE,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],  # a pickle on the wire would be code of whoever can reach the broker
        task_acks_late=True,  # the report is stored before the message is gone
        worker_prefetch_multiplier=1,  # a run must not wait behind another while a slot is free elsewhere
        task_track_started=True,
        # The ledger gives a lost run to another worker; these would do it a second time.
        task_reject_on_worker_lost=False,
        task_retry_on_worker_lost=False,
        task_acks_on_failure_or_timeout=True,
        # A run goes on while the broker is away, and its report goes to the database.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_concurrency=settings.slots,
        worker_consumer="ciapp.mends.consumer:Consumer",  # one that no message can end
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_hijack_root_logger=True,
        worker_redirect_stdouts=False,
        # Events are for whoever watches now; the ledger is the record.
        event_queue_ttl=60.0,
        event_queue_expires=300.0,
    )
    return app


def run_worker(words: list[str]) -> int:
    """Run Celery's worker with options of its own; its exit code, which `app.start` keeps to itself.

    Its command alone: the whole program would import all other commands too, and Flower, into every worker.
    """
    worker = importlib.import_module("celery.bin.worker").worker  # only those who run it pay for it
    context = importlib.import_module("celery.bin.base").CLIContext(
        app=app, no_color=bool(os.environ.get("NO_COLOR")), workdir=None, quiet=True
    )
    return int(worker.main(args=words, prog_name="ciapp worker", standalone_mode=False, obj=context) or 0)


# Celery warns of workers that run as root because of pickles, which nothing here accepts.
warnings.simplefilter("ignore", SecurityWarning)
try:
    settings = load_settings()
except SettingsError as error:
    if "celery.bin.celery" not in sys.modules:
        raise
    # `celery -A ciapp` shows the traceback of each exception that it meets here.
    sys.stderr.write(f"ciapp: {error}\n")
    raise SystemExit(error.exit_code) from error
app = make_app(settings)
