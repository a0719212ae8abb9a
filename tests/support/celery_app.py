"""A Celery application for tests of brokers: its tasks write what they did into a journal.

Settings come from variables: BROKER, FOLDER (journal, flags and the embedded broker), MENDS (0: unmended).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Queue

from ciapp import mends, transport

QUEUE = os.environ.get("QUEUE", "ciapp-test")
FOLDER = Path(os.environ["FOLDER"])
QUORUM = {"x-queue-type": "quorum"} if os.environ["BROKER"].startswith("amqp") else {}

transport.register()
if os.environ.get("MENDS") != "0":
    mends.apply()

app = Celery("tests", broker=os.environ["BROKER"])
app.conf.update(
    task_queues=[Queue(QUEUE, routing_key=QUEUE, queue_arguments=QUORUM)],
    task_default_queue=QUEUE,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"folder": str(FOLDER / "broker")}
    if os.environ["BROKER"].startswith("embedded")
    else {},
)
if os.environ.get("MENDS") != "0":
    app.conf.worker_consumer = "ciapp.mends.consumer:Consumer"


def note(what: str, **fields: Any) -> None:
    """Add a line to the journal."""
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.time(), **fields}) + "\n"
    journal = os.open(FOLDER / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, line.encode())
    os.close(journal)


@app.task(bind=True, name="hold")  # type: ignore[untyped-decorator]
def hold(self: Any, name: str) -> None:
    """Run until the flag of that name is raised."""
    note("begin", name=name, redelivered=self.request.delivery_info.get("redelivered"), main=os.getppid())
    while not (FOLDER / name).exists():
        time.sleep(0.01)
    note("end", name=name)


@app.task(name="tell")  # type: ignore[untyped-decorator]
def tell(name: str) -> None:
    """Be noted."""
    note("told", name=name)
