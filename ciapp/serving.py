"""Commands that run until they are told to stop: up, dispatcher, worker, monitor."""

from __future__ import annotations

import errno
import logging
import os
import sys

import click

from ciapp.context import Context, pass_context
from ciapp.errors import CiError, UsageError


@click.command()
@click.option("--concurrency", type=click.IntRange(1), help="Runs tested at a time.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the monitor's pages.")
@click.option("--no-monitor", is_flag=True, help="Do not start the monitor.")
@pass_context
def up(context: Context, concurrency: int | None, port: int | None, no_monitor: bool) -> None:
    """Run dispatcher, worker and monitor here until Ctrl-C."""
    from ciapp.connection import end_if_refused
    from ciapp.services import run_services

    context.ledger().close()
    end_if_refused(context.settings)
    sys.exit(run_services(context.settings, concurrency=concurrency, port=port, monitor=not no_monitor))


@click.command()
@click.option("--once", is_flag=True, help="Take in what is there, send it, and end.")
@pass_context
def dispatcher(context: Context, once: bool) -> None:
    """Move pushes into the ledger and runs to workers. Take back runs that were lost."""
    from ciapp.intake.serve import serve

    serve(context.settings, context.ledger(), once=once)


TASKS_COLUMNS = "name,uuid,state,args,received,started,runtime,worker"
CANNOT_LISTEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
DETACH = {"-D", "--detach"}  #: Celery would go on with a worker that knows nothing of ciapp
PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_context
def worker(context: Context, arguments: tuple[str, ...]) -> None:
    """Test commits: a Celery worker, with Celery's own options."""
    if not DETACH.isdisjoint(arguments):
        raise UsageError(
            "ciapp worker stays where it is started: leave --detach out, and start it as a service"
        )
    context.ledger().close()
    from ciapp.celery import run_worker

    options = ["--loglevel=info", "--without-mingle", "--without-gossip"]
    if run_worker([*options, *arguments]):
        sys.exit(CiError.exit_code)  # it has said why


@click.command(context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_context
def monitor(context: Context, arguments: tuple[str, ...]) -> None:
    """Watch in a browser: Flower, with Flower's own options."""
    settings = context.settings
    from ciapp.celery import app

    # A worker that does not answer within Flower's second, as one that starts does, is no news.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    # As in config/flowerconfig.py, which is not installed.
    options = ["--read_only", "--max_tasks=10000", f"--tasks_columns={TASKS_COLUMNS}", "--logging=warning"]
    options += [f"--address={settings.monitor_address}", f"--port={settings.monitor_port}"]
    options += arguments
    try:
        app.start(["flower", *options])
    except OSError as error:
        if error.errno not in CANNOT_LISTEN:
            raise
        where = f"{_last(options, '--address=')} {_last(options, '--port=')}"
        raise UsageError(
            f"the monitor cannot listen with {where}: {os.strerror(error.errno)}; give another --port"
        ) from error


def _last(options: list[str], start: str) -> str:
    """The option that holds, of several with the same name."""
    return [option for option in options if option.startswith(start)][-1]
