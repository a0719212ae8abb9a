"""The command line: parse, one call, print.

Exit codes of commands that end in a verdict: 0 passed, 1 not passed, 2 usage, 3 infra-error or a service
that cannot be reached, 4 no such run or not finished. Any command: 70 a fault of ciapp's own.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

import click

from ciapp import __version__, start
from ciapp.context import PYTHON, REPO, REV, Context, pass_context
from ciapp.desk.commands import init_command, reproduce_command, run_command
from ciapp.errors import FAULT_EXIT_CODE, CiError, NoSuchRunError
from ciapp.hooking import hook
from ciapp.keeping import backup, forget, purge_command, restore
from ciapp.logs import set_up_logging
from ciapp.outlets.terminal import escape_line
from ciapp.outlets.text import render_log_line, render_report
from ciapp.program import Program, ReaderGoneError
from ciapp.progress import await_runs, log_line, progress_of_all, runs_line, watch_runs, why_waiting
from ciapp.results.history import commit_log, runs_of
from ciapp.results.matrix import environment_of
from ciapp.results.outcomes import latest_runs, past_tests
from ciapp.results.overall import overall
from ciapp.results.pushes import find_repository, list_repositories
from ciapp.results.queue import count_queues
from ciapp.results.runs import Run, cancel_run, running_runs
from ciapp.results.store import report_on
from ciapp.results.workers import list_workers
from ciapp.serving import dispatcher, monitor, up, worker
from ciapp.show import (
    history_document,
    log_document,
    render_history,
    render_status,
    report_document,
    status_document,
    write_junit,
)

start.loaded()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", type=click.Path(path_type=Path), help="The settings file to use.")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug events.")
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context, config: Path | None, debug: bool) -> None:
    """Continuous integration for git repositories you host yourself."""
    if config is not None:
        # Workers, dispatcher and monitor are started as processes of their own, with the same settings.
        os.environ["CIAPP_CONFIG"] = str(config.absolute())
    set_up_logging(logging.DEBUG if debug else logging.INFO)
    context.obj = Context(debug)


@cli.command()
@click.option("--keep", is_flag=True, help="Keep the demo's folder instead of deleting it.")
@pass_context
def demo(context: Context, keep: bool) -> None:
    """Show all of it in a temporary folder.

    A push, a red report, the fix, a green one.
    """
    from ciapp.demo import run_demo

    run_demo(keep=keep)


@cli.command()
@REPO
@REV
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_context
def log(context: Context, repo: str, rev: str, limit: int, as_json: bool) -> None:
    """One line a commit: status, counts, duration, subject."""
    database = context.ledger()
    repository = find_repository(database, repo)
    commits = commit_log(database, repository, rev, context.settings.host_name, limit)
    if as_json:
        click.echo(json.dumps(log_document(repo, commits), indent=2))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    to_come = frozenset[str]()
    if not all(commit.runs for commit in commits):
        from ciapp.intake.reconciliation import commits_to_come

        to_come = commits_to_come(context.settings, database, repository)
    waits = why_waiting(database, repository, [run for commit in commits for run in commit.runs], to_come)
    for commit in commits:
        line = log_line(commit, waits)
        click.echo(render_log_line(line, width=width, color=sys.stdout.isatty()))


@cli.command()
@REPO
@click.argument("test")
@click.option("--rev", metavar="REV", help="Runs of the commits from REV back, not the latest of all.")
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_context
def history(context: Context, repo: str, test: str, rev: str | None, limit: int, as_json: bool) -> None:
    """What became of TEST, an id or a part of one, in the last runs."""
    database = context.ledger()
    repository = find_repository(database, repo)
    if rev is None:
        runs = latest_runs(database, repository.id, limit)
    else:
        commits = commit_log(database, repository, rev, context.settings.host_name, limit)
        runs = [run for commit in commits for run in commit.runs]
    tests = past_tests(database, runs, test)
    if as_json:
        click.echo(json.dumps(history_document(repo, tests), indent=2))
    else:
        click.echo(render_history(tests, test, len(runs)))


@cli.command()
@REPO
@REV
@PYTHON
@click.option("--environment", help="The run in one environment alone, by its name in `ciapp log --json`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML to FILE.")
@pass_context
def report(
    context: Context,
    repo: str,
    rev: str,
    version: str,
    environment: str | None,
    as_json: bool,
    junit: Path | None,
) -> None:
    """Print what testing a commit found. Exits with its verdict."""
    database, repository, commit = context.find(repo, rev)
    runs = _pick_runs(
        runs_of(database, repository, commit), environment_of(version) if version else environment
    )
    found = [one for run in runs if (one := report_on(database, run)) is not None]
    is_finished = len(found) == len(runs)
    if junit is not None and is_finished:
        write_junit(junit, *found)
    if as_json and is_finished:
        click.echo(json.dumps(report_document(runs, found), indent=2))
    elif junit is None and not as_json:
        click.echo("\n".join(map(render_report, found)), nl=False)
    status = overall(runs).status
    if status is None:
        progress = progress_of_all(runs, why_waiting(database, repository, runs))
        raise NoSuchRunError(
            f"commit {commit[:12]} of {repo} has not finished: {progress}; see `ciapp wait {repo} {rev}`"
        )
    sys.exit(status.exit_code)


@cli.command()
@REPO
@REV
@click.option("--timeout", type=float, help="Give up after so many seconds, with exit code 4.")
@pass_context
def wait(context: Context, repo: str, rev: str, timeout: float | None) -> None:
    """Show a commit's tests until they finish. Exits with the verdict."""
    database = context.ledger()
    deadline = time.monotonic() + timeout if timeout is not None else None
    repository, runs = await_runs(database, repo, rev, context.settings, deadline)
    runs = watch_runs(database, repository, runs, deadline)
    click.echo(render_log_line(runs_line(runs), width=0, color=sys.stdout.isatty()))
    verdict = overall(runs).status
    assert verdict is not None
    sys.exit(verdict.exit_code)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@pass_context
def status(context: Context, as_json: bool) -> None:
    """Queue, workers, and what is being tested now."""
    database = context.ledger()
    counts, workers, running = count_queues(database), list_workers(database), running_runs(database)
    if as_json:
        document = status_document(counts, workers, running, list_repositories(database))
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(render_status(counts, workers, running))


@cli.command("rerun")
@REPO
@REV
@PYTHON
@click.option("--fresh", is_flag=True, help="Never let another commit's result stand in for it.")
@pass_context
def rerun_command(context: Context, repo: str, rev: str, version: str, fresh: bool) -> None:
    """Test a commit again, or for the first time.

    With --python, also under one that it does not name.

    A commit that has a result is tested anew. For one that has none (it was pushed with ci.skip, or its run
    was purged) the result of the same files may stand in, unless --fresh is given.
    """
    database, repository, commit = context.find(repo, rev)
    from ciapp.intake.register import queue_commit

    queued = queue_commit(context.settings, database, repository, commit, version, fresh=fresh)
    state = "queued" if queued else "waiting or running already"
    click.echo(f"commit {commit[:12]} of {repo} is {state}; follow it with `ciapp wait {repo} {commit[:12]}`")


@cli.command()
@REPO
@REV
@PYTHON
@pass_context
def cancel(context: Context, repo: str, rev: str, version: str) -> None:
    """Cancel a commit's runs that have not finished."""
    database, repository, commit = context.find(repo, rev)
    runs = _pick_runs(runs_of(database, repository, commit), environment_of(version) if version else None)
    cancelled = [run for run in runs if cancel_run(database, run.id)]
    click.echo(f"commit {commit[:12]} of {repo}: {'cancelled' if cancelled else 'finished already'}")


@cli.command()
@pass_context
def doctor(context: Context) -> None:
    """Check each part, and say what to do about each red line."""
    from ciapp.doctor import examine

    sys.exit(examine(context.settings))


for _command in (
    hook,
    up,
    dispatcher,
    worker,
    monitor,
    purge_command,
    forget,
    backup,
    restore,
    run_command,
    reproduce_command,
    init_command,
):
    cli.add_command(_command)


def _pick_runs(runs: list[Run], environment: str | None) -> list[Run]:
    """The run in one environment, or all of them."""
    picked = [run for run in runs if environment in (None, run.environment)]
    if not picked:
        known = ", ".join(run.environment for run in runs)
        raise NoSuchRunError(
            f"commit {runs[0].commit[:12]} has no run in environment {environment!r}; it has {known}"
        )
    return picked


def main() -> None:
    """The program: every error of ours is one sentence and an exit code."""
    try:
        _run()
    except (ReaderGoneError, BrokenPipeError):
        # Python would complain once more when it flushes at exit.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(141)


def _run() -> None:
    debug = "--debug" in sys.argv
    try:
        cli.main(standalone_mode=False)
    except CiError as error:
        if debug:
            _show_traceback()
        click.echo(f"ciapp: {escape_line(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (ReaderGoneError, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            _show_traceback()
        said = escape_line(f"{type(error).__name__}: {error}")
        click.echo(f"ciapp: this is a fault of ciapp's own ({said}); `--debug` shows where", err=True)
        sys.exit(FAULT_EXIT_CODE)


def _show_traceback() -> None:
    click.echo("\n".join(map(escape_line, traceback.format_exc().splitlines())), err=True)


if __name__ == "__main__":
    main()
