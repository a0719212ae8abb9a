"""`ciapp doctor`: look at each part, and say what to do about each that does not work.

In:  the settings.
Out: a line per part, "ok", "warn" or "FAIL", the fact, and for the last two the next step; exit code 0, or
     3 when a part fails.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path

import click
import msgspec

from ciapp.errors import CiError
from ciapp.git import Repository, git_version
from ciapp.intake.hook import is_installed
from ciapp.intake.presence import is_dispatcher_alive
from ciapp.intake.spool import spool_folder
from ciapp.outlets.terminal import Color, escape_line, paint
from ciapp.results.database import Database
from ciapp.results.pushes import KnownRepository, list_repositories
from ciapp.results.schema import HEAD_REVISION
from ciapp.results.workers import list_workers
from ciapp.settings import EMBEDDED_BROKER, Settings, settings_file
from ciapp.testing.sandbox import describe_level, find_level

OLDEST_GIT = (2, 30)
LOW_DISK_MIB = 1024
CLOCKS_APART_S = 5.0


class Mark(StrEnum):
    """How a part is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(msgspec.Struct, frozen=True):
    """One line of the examination."""

    part: str
    mark: Mark
    fact: str
    advice: str = ""


def examine(settings: Settings) -> int:
    """Print a line per part; returns the exit code."""
    worst = Mark.OK
    for finding in find_all(settings):
        color = {Mark.OK: Color.GREEN, Mark.WARN: Color.YELLOW, Mark.FAIL: Color.RED}[finding.mark]
        mark = f"{finding.mark.value:4}"
        line = escape_line(f"{finding.part:12} {finding.fact}")
        click.echo(f"{paint(mark, color) if sys.stdout.isatty() else mark}  {line}")
        if finding.advice:
            click.echo(f"{'':18} → {escape_line(finding.advice)}")
        if finding.mark is Mark.FAIL:
            worst = Mark.FAIL
    return 3 if worst is Mark.FAIL else 0


def find_all(settings: Settings) -> Iterator[Finding]:
    """Every part, in the order of a push's walk; a part that cannot be looked at fails with the reason."""
    file = settings_file()
    yield Finding("settings", Mark.OK, str(file) if file else "defaults; no settings file")
    yield from _guarded("git", _check_git)
    yield from _guarded("disk", lambda: _check_disk(settings))
    yield from _guarded("sandbox", lambda: _check_sandbox(settings))
    yield from _guarded("broker", lambda: _check_broker(settings))
    database = Database(settings.database)
    found = list(_guarded("database", lambda: _check_database(database)))
    yield from found
    if any(finding.mark is Mark.FAIL for finding in found):
        return
    yield from _guarded("clock", lambda: _check_clock(database))
    yield from _guarded("workers", lambda: _check_workers(database))
    for repository in list_repositories(database):
        yield from _guarded(repository.name, partial(_check_repository, settings, repository))


def _guarded(part: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except CiError as error:
        yield Finding(part, Mark.FAIL, str(error))
    except OSError as error:
        yield Finding(part, Mark.FAIL, str(error), "check that path and its permissions")


def _check_git() -> Iterator[Finding]:
    version = ".".join(map(str, git_version()))
    if git_version()[:2] < OLDEST_GIT:
        wanted = ".".join(map(str, OLDEST_GIT))
        yield Finding("git", Mark.FAIL, f"version {version}", f"install git {wanted} or newer")
    else:
        yield Finding("git", Mark.OK, f"version {version}")


def _check_disk(settings: Settings) -> Iterator[Finding]:
    state = settings.state_path
    state.mkdir(parents=True, exist_ok=True, mode=0o711)
    free_mib = shutil.disk_usage(state).free >> 20
    fact = f"{free_mib} MiB free in {state}"
    if free_mib < LOW_DISK_MIB:
        yield Finding("disk", Mark.FAIL, fact, "make room there, or set state_dir elsewhere")
    else:
        yield Finding("disk", Mark.OK, fact)


def _check_sandbox(settings: Settings) -> Iterator[Finding]:
    level = find_level(settings.sandbox)
    fact = describe_level(level, settings.state_path)
    if level.reason:
        yield Finding("sandbox", Mark.WARN, fact, "install bubblewrap, or mend what the reason says")
    else:
        yield Finding("sandbox", Mark.OK, fact)


def _check_broker(settings: Settings) -> Iterator[Finding]:
    from ciapp.celery import app

    with app.connection_for_write(connect_timeout=3) as connection:
        address = str(connection.as_uri())
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
        except Exception as error:  # each transport has exceptions of its own
            advice = "start it, or correct broker_url in the settings"
            yield Finding("broker", Mark.FAIL, f"{address} does not answer: {error}", advice)
            return
    what = "embedded, in the state folder" if settings.broker_url == EMBEDDED_BROKER else address
    yield Finding("broker", Mark.OK, what)


def _check_database(database: Database) -> Iterator[Finding]:
    revision = database.revision()
    if revision != HEAD_REVISION:
        database.migrate()
        revision = database.revision()
    yield Finding("database", Mark.OK, f"{database.address}, migration {revision}")


def _check_clock(database: Database) -> Iterator[Finding]:
    if database.dialect == "sqlite":
        yield Finding("clock", Mark.OK, "one machine, one clock")
        return
    theirs = database.now()
    apart_s = abs((datetime.now(UTC) - theirs).total_seconds())
    fact = f"{apart_s:.1f} s apart from the database's"
    if apart_s > CLOCKS_APART_S:
        yield Finding("clock", Mark.WARN, fact, "times in reports are off; synchronise this machine's clock")
    else:
        yield Finding("clock", Mark.OK, fact)


def _check_workers(database: Database) -> Iterator[Finding]:
    workers = list_workers(database)
    if not workers:
        yield Finding("workers", Mark.WARN, "none", "start one with `ciapp up` or `ciapp worker`")
    for worker in workers:
        fact = f"{worker.name}: slots {worker.slots}, Python {worker.python}, sandbox {worker.sandbox}"
        yield Finding("worker", Mark.OK, fact)


def _check_repository(settings: Settings, repository: KnownRepository) -> Iterator[Finding]:
    if repository.host != settings.host_name:
        yield Finding("repository", Mark.OK, f"{repository.name} is on {repository.host}; look there")
        return
    git_dir = Path(repository.git_dir)
    part = repository.name
    if not git_dir.is_dir():
        yield Finding(part, Mark.FAIL, f"{git_dir} is gone", "bring it back, or `ciapp hook install` it anew")
        return
    refs = len(Repository(git_dir).refs())
    if is_installed(git_dir):
        yield Finding(part, Mark.OK, f"hook in {git_dir}, {refs} refs")
    else:
        advice = f"run `ciapp hook install {git_dir} --name {repository.name}`"
        yield Finding(part, Mark.FAIL, f"no hook in {git_dir}", advice)
    spool = spool_folder(git_dir)
    waiting = sum(one.is_file() and not one.name.startswith(".") for one in spool.iterdir())
    if is_dispatcher_alive(git_dir):
        yield Finding(part, Mark.OK, f"dispatcher is there; {waiting} records in the spool")
    else:
        advice = "start one with `ciapp up` or `ciapp dispatcher`; the hook starts one for a moment at a push"
        yield Finding(part, Mark.WARN, f"no dispatcher; {waiting} records in the spool", advice)
    mirror = settings.state_path / "mirrors" / f"{repository.name}.git"
    if mirror.is_dir():
        started = time.monotonic()
        Repository(mirror).run("rev-parse", "--git-dir")
        took_ms = round(1000 * (time.monotonic() - started))
        yield Finding(part, Mark.OK, f"mirror answers in {took_ms} ms")
