"""Commands that keep the ledger: purge, forget, backup, restore."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import click

from ciapp.context import REPO, Context, pass_context
from ciapp.errors import UsageError
from ciapp.outlets.terminal import escape_line
from ciapp.results.pushes import find_repository
from ciapp.results.retention import Retention, purge, retention_of

UNITS_S = {"h": 3600, "d": 86400, "w": 7 * 86400}
UNITS_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Duration(click.ParamType[timedelta]):
    """ "90d": hours, days or weeks."""

    name = "duration"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> timedelta:
        found = re.fullmatch(r"(\d{1,6})([hdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is no duration; give hours, days or weeks, as in 12h, 90d, 8w")
        return timedelta(seconds=int(found[1]) * UNITS_S[found[2]])


class Size(click.ParamType[int]):
    """ "10G": bytes, or binary multiples of them."""

    name = "size"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,15})([KMGT]?)", str(value).upper())
        if found is None:
            self.fail(f"{value!r} is no size; give bytes, as in 500M, 10G")
        return int(found[1]) * UNITS_BYTES[found[2]]


@click.command("purge")
@click.option("--keep", type=Duration(), metavar="90d", help="Keep runs that finished within this time.")
@click.option("--keep-runs", type=click.IntRange(0), metavar="N", help="Keep the newest N of a repository.")
@click.option("--max-bytes", type=Size(), metavar="10G", help="Keep no more reports than this, oldest go.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
@pass_context
def purge_command(
    context: Context, keep: timedelta | None, keep_runs: int | None, max_bytes: int | None, dry_run: bool
) -> None:
    """Delete finished runs that are not to be kept. Without options, as the settings say."""
    asked = Retention(keep=keep, keep_runs=keep_runs, max_bytes=max_bytes)
    retention = retention_of(context.settings.retention) if asked.keeps_all else asked
    if retention.keeps_all:
        raise UsageError(
            "nothing says what to keep; give --keep, --keep-runs or --max-bytes, or set [retention]"
        )
    done = purge(context.ledger(), retention, dry_run=dry_run)
    said = "would delete" if dry_run else "deleted"
    click.echo(f"{said} {_count(done.runs, 'run')} and {_size(done.bytes)} of reports")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_context
def backup(context: Context, file: Path) -> None:
    """Write the ledger to FILE while it is used."""
    from ciapp.results.backup import back_up

    done = back_up(context.ledger(), file)
    click.echo(escape_line(f"backed up {_rows(done.rows)} to {file} ({_size(file.stat().st_size)})"))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--replace", is_flag=True, help="Restore although the ledger is not empty; what is in it is lost."
)
@pass_context
def restore(context: Context, file: Path, replace: bool) -> None:
    """Make the ledger what FILE says. Unfinished runs are queued again."""
    from ciapp.results.backup import restore as restore_from

    done = restore_from(context.ledger(), file, replace=replace)
    click.echo(f"restored {_rows(done.rows)} as of {done.made_at:%Y-%m-%d %H:%M:%S} UTC")
    if done.requeued:
        click.echo(f"queued again: {_count(done.requeued, 'unfinished run')}")


@click.command()
@REPO
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def forget(context: Context, repo: str, yes: bool) -> None:
    """Delete all that is known of REPO. Its hook must be removed, or the repository be gone."""
    from ciapp.intake.hook import default_name, is_installed
    from ciapp.results.forgetting import forget as forget_all
    from ciapp.testing.mirror import Mirror

    database, settings = context.ledger(), context.settings
    repository = find_repository(database, repo)
    git_dir, is_here = Path(repository.git_dir), repository.host == settings.host_name
    # A hook that records under another name leaves this one to be forgotten.
    if is_here and git_dir.is_dir() and is_installed(git_dir) and default_name(git_dir) == repo:
        raise UsageError(f"{repo} still has its hook; run `ciapp hook remove {git_dir}` first")
    where = git_dir if is_here else f"{git_dir} on {repository.host}, whose hook must be removed there"
    question = f"Delete the runs and reports of {repo} ({where})? The repository itself is not touched."
    if not yes:
        click.confirm(escape_line(question), abort=True)
    done = forget_all(database, repository)
    click.echo(f"forgot {repo}: {_count(done.commits, 'commit')}, {_count(done.runs, 'run')}")
    if Mirror(settings.state_path, repo).remove():
        click.echo("deleted its mirror on this host")


def _rows(rows: dict[str, int]) -> str:
    return f"{_count(rows.get('runs', 0), 'run')} and {_count(rows.get('reports', 0), 'report')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
