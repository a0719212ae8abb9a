"""`ciapp doctor`: look at each part, and say what to do about each that does not work.

In:  the settings.
Out: a line per part, "ok", "warn" or "FAIL", the fact, and for the last two the next step; exit code 0, or
     3 when a part fails.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import click
import msgspec

from ciapp.errors import CiError, GitError
from ciapp.git import Repository, git_version
from ciapp.intake.hook import default_name, installed_command, is_installed, is_removed
from ciapp.intake.hook_settings import logs_refs
from ciapp.intake.presence import is_dispatcher_alive
from ciapp.intake.spool import REJECTED, spool_folder
from ciapp.outlets.terminal import Color, escape_line, paint
from ciapp.results.database import Database
from ciapp.results.matrix import needed_for
from ciapp.results.pushes import KnownRepository, list_repositories
from ciapp.results.queue import count_queues, total, unserved
from ciapp.results.schema import HEAD_REVISION
from ciapp.results.workers import list_workers, served
from ciapp.settings import EMBEDDED_BROKER, Settings, settings_file
from ciapp.show import named_versions
from ciapp.testing.interpreters import find_interpreters
from ciapp.testing.sandbox import check_level, describe_level

OLDEST_GIT = (2, 30)
LOW_DISK_MIB = 1024
CLOCKS_APART_S = 5.0
OLD_RECORD_S = 60.0


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
        line = escape_line(f"{finding.part:16} {finding.fact}")
        click.echo(f"{paint(mark, color) if sys.stdout.isatty() else mark}  {line}")
        if finding.advice:
            click.echo(f"{'':22} → {escape_line(finding.advice)}")
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
    yield from _guarded("pythons", lambda: _check_pythons(settings))
    yield from _guarded("broker", lambda: _check_broker(settings))
    yield from _guarded("outbox", lambda: _check_outbox(settings))
    try:
        database = Database(settings.database)
        revision = database.revision()
    except (CiError, OSError) as error:
        yield _failed("database", error, "start it, or correct database_url in the settings")
        return
    yield Finding("database", Mark.OK, database.address)
    found = list(_guarded("migrations", lambda: _check_migrations(database, revision)))
    yield from found
    if any(finding.mark is Mark.FAIL for finding in found):
        return
    yield from _guarded("clock", lambda: _check_clock(database))
    yield from _guarded("workers", lambda: _check_workers(database))
    for repository in list_repositories(database):
        yield from _examine_repository(settings, repository)


def _guarded(part: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except (CiError, OSError) as error:
        advice = "check that path and its permissions" if isinstance(error, OSError) else ""
        yield _failed(part, error, advice)


def _failed(part: str, error: CiError | OSError, advice: str) -> Finding:
    """What went wrong, and what the error itself advises; the advice given where it knows none but this."""
    if isinstance(error, OSError):
        return Finding(part, Mark.FAIL, f"{error.filename}: {error.strerror}", advice)
    fact, _, step = str(error).rpartition("; ")
    if not fact or (advice and "`ciapp doctor`" in step):
        return Finding(part, Mark.FAIL, fact or step, advice)
    return Finding(part, Mark.FAIL, fact, step)


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
    level = check_level(settings.sandbox, settings.state_path)
    fact = describe_level(level, settings.state_path)
    if level.reason:
        yield Finding("sandbox", Mark.WARN, fact, "install bubblewrap, or mend what the reason says")
    else:
        yield Finding("sandbox", Mark.OK, fact)


def _check_pythons(settings: Settings) -> Iterator[Finding]:
    found = find_interpreters(settings)
    versions = [interpreter.version for interpreter in found.interpreters.values()]
    fact = f"of this host, for commits that name one: {', '.join(versions) or 'none'}"
    yield Finding("pythons", Mark.OK, fact)
    for complaint in found.complaints:
        advice = "install it, or correct pythons in the settings; then restart the worker of this host"
        yield Finding("pythons", Mark.WARN, complaint, advice)


def _check_broker(settings: Settings) -> Iterator[Finding]:
    from ciapp.connection import reach_broker

    address = reach_broker(settings)
    embedded = settings.broker_url == EMBEDDED_BROKER
    yield Finding("broker", Mark.OK, "embedded, in the state folder" if embedded else address)


def _check_outbox(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_path / "outbox"
    waiting = len(list(folder.glob("*.report")))
    damaged = len(list(folder.glob("*.unreadable")))
    if damaged:
        advice = f"look at {folder}, and delete them; their runs are tested again"
        yield Finding("outbox", Mark.WARN, f"{damaged} reports cannot be read", advice)
    elif waiting:
        advice = "a worker of this host delivers them while the database answers; is one running?"
        yield Finding("outbox", Mark.WARN, f"{waiting} reports wait to be stored", advice)
    else:
        yield Finding("outbox", Mark.OK, "no report waits to be stored")


def _check_migrations(database: Database, revision: str) -> Iterator[Finding]:
    database.migrate()
    done = "" if revision == HEAD_REVISION else f", brought there from {revision or 'nothing'} just now"
    yield Finding("migrations", Mark.OK, f"at {HEAD_REVISION}{done}")


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
    counts = count_queues(database)
    waiting = total(counts).waiting + total(counts).sent
    if not workers:
        mark, fact = (Mark.FAIL, f"none, and {waiting} runs wait") if waiting else (Mark.WARN, "none")
        yield Finding("workers", mark, fact, "start one with `ciapp up` or `ciapp worker`")
    for worker in workers:
        python = f"Python {worker.python}{named_versions(worker)}"
        fact = f"{worker.name}: slots {worker.slots}, {python}, sandbox {worker.sandbox}"
        yield Finding("worker", Mark.OK, fact)
    for environment, number in unserved(counts, served(workers)).items():
        wait = "1 run waits" if number == 1 else f"{number} runs wait"
        fact = f"{wait} for {needed_for(environment)}, which no worker has"
        advice = "install it where a worker runs (on its PATH, by pyenv or uv), and restart that worker"
        yield Finding("workers", Mark.WARN, fact, advice)


def _examine_repository(settings: Settings, repository: KnownRepository) -> Iterator[Finding]:
    """The parts of one repository, as far as they are on this host."""
    name, git_dir = repository.name, Path(repository.git_dir)
    if repository.host != settings.host_name:
        yield from _guarded(name, lambda: _check_host(settings, repository))
    elif not git_dir.is_dir():
        moved = f"`ciapp hook install PATH --name {name} --moved` where it is now"
        advice = f"bring it back; or {moved}; or `ciapp forget {name}`"
        yield Finding(name, Mark.FAIL, f"{git_dir} is gone", advice)
    elif is_removed(git_dir):
        install = f"`ciapp hook install {git_dir} --name {name}`"
        advice = f"run {install} to test pushes again, or `ciapp forget {name}`"
        yield Finding(name, Mark.WARN, f"its hook was removed from {git_dir}; pushes are not tested", advice)
    else:
        yield from _guarded(f"{name} hook", lambda: _check_hook(repository))
        yield from _guarded(f"{name} spool", lambda: _check_spool(repository))
        yield from _guarded(f"{name} refs", lambda: _check_refs(repository))
    yield from _guarded(f"{name} mirror", lambda: _check_mirror(settings, repository))


def _check_host(settings: Settings, repository: KnownRepository) -> Iterator[Finding]:
    git_dir = Path(repository.git_dir)
    if git_dir.is_dir() and is_installed(git_dir) and default_name(git_dir) == repository.name:
        fact = (
            f"{git_dir} is on this machine, which the ledger knows as {repository.host} and which is "
            f"{settings.host_name} now: nobody takes its pushes in"
        )
        advice = f'set host = "{repository.host}", or run `ciapp hook install {git_dir} --moved`'
        yield Finding(repository.name, Mark.FAIL, fact, advice)
    else:
        yield Finding(repository.name, Mark.OK, f"is on {repository.host}; look there")


def _check_hook(repository: KnownRepository) -> Iterator[Finding]:
    git_dir = Path(repository.git_dir)
    part, advice = (
        f"{repository.name} hook",
        f"run `ciapp hook install {git_dir} --name {repository.name}` again",
    )
    if not is_installed(git_dir):
        yield Finding(part, Mark.FAIL, f"git does not call it in {git_dir}", advice)
    elif not os.access(command := installed_command(git_dir), os.X_OK):
        yield Finding(part, Mark.FAIL, f"it cannot start ciapp: {command} is missing", advice)
    elif not logs_refs(git_dir):
        fact = f"git does not log the refs of {git_dir}: of two lost hooks in a row, one may be lost for ever"
        yield Finding(part, Mark.WARN, fact, advice)
    else:
        yield Finding(part, Mark.OK, f"in {git_dir}")


def _check_spool(repository: KnownRepository) -> Iterator[Finding]:
    """Spool and dispatcher in one: what waits is bad only if nobody comes for it."""
    git_dir = Path(repository.git_dir)
    spool, part = spool_folder(git_dir), f"{repository.name} spool"
    if not spool.is_dir():
        advice = f"run `ciapp hook install {git_dir} --name {repository.name}` again"
        fact = f"{spool} is missing; pushes are found by comparing refs alone"
        yield Finding(part, Mark.FAIL, fact, advice)
        return
    ages_s = [time.time() - one.stat().st_mtime for one in spool.iterdir() if _is_record(one)]
    waiting = "1 record waits" if len(ages_s) == 1 else f"{len(ages_s)} records wait"
    rejected = spool / REJECTED
    if rejected.is_dir() and (number := len(list(rejected.iterdir()))):
        advice = f"look at {rejected}, and delete them; their pushes were found by comparing refs"
        yield Finding(part, Mark.WARN, f"{number} files are no records and were put aside", advice)
    if not os.access(spool, os.W_OK | os.X_OK):
        yield Finding(part, Mark.FAIL, f"{spool} cannot be written", "give it the permissions of objects/")
    elif max(ages_s, default=0) > OLD_RECORD_S:
        fact = f"{waiting}, the oldest for {max(ages_s):.0f} s"
        yield Finding(part, Mark.FAIL, fact, "see what the dispatcher says; start one with `ciapp up`")
    else:
        yield Finding(part, Mark.OK, waiting)
    part = f"{repository.name} dispatcher"
    if is_dispatcher_alive(git_dir):
        yield Finding(part, Mark.OK, "is there")
    else:
        advice = "start one with `ciapp up` or `ciapp dispatcher`; the hook starts one for a moment at a push"
        yield Finding(part, Mark.WARN, "none", advice)


def _is_record(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _check_refs(repository: KnownRepository) -> Iterator[Finding]:
    number = len(Repository(Path(repository.git_dir)).refs())
    yield Finding(f"{repository.name} refs", Mark.OK, f"readable, {number} in all")


def _check_mirror(settings: Settings, repository: KnownRepository) -> Iterator[Finding]:
    mirror, part = settings.state_path / "mirrors" / f"{repository.name}.git", f"{repository.name} mirror"
    if not mirror.is_dir():
        yield Finding(part, Mark.OK, "none on this host yet; the first run makes it")
        return
    try:
        refs = len(Repository(mirror).refs())
    except GitError as error:
        yield Finding(part, Mark.FAIL, str(error), f"delete {mirror}; the next run fetches it anew")
    else:
        yield Finding(part, Mark.OK, f"readable, with {refs} refs")
