"""The commands of a desk: run, reproduce, init."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ciapp.context import PYTHON, PYTHONS, REPO, Context, pass_context
from ciapp.errors import NoSuchRunError, UsageError
from ciapp.outlets.terminal import escape_line
from ciapp.results.history import runs_of
from ciapp.results.matrix import environment_of
from ciapp.results.runs import Run

JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document; all else goes to stderr."
)
JUNIT = click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML to FILE as well."
)


@click.command("run")
@click.argument("path", default=".", type=click.Path(path_type=Path))
@click.option("-k", "names", multiple=True, metavar="PATTERN", help="Only tests that unittest's -k takes.")
@click.option("--failed", "only_failed", is_flag=True, help="Only what failed when it last ran.")
@click.option("--until-fail", type=click.IntRange(1), metavar="N", help="Up to N runs, until one fails.")
@PYTHONS
@click.option("-v", "--verbose", is_flag=True, help="A line a test instead of a letter.")
@JSON
@JUNIT
@pass_context
def run_command(
    context: Context,
    path: Path,
    names: tuple[str, ...],
    only_failed: bool,
    until_fail: int | None,
    version: str,
    verbose: bool,
    as_json: bool,
    junit: Path | None,
) -> None:
    """Test the working tree that PATH is in, as a worker would. Exits with the verdict."""
    from ciapp.desk.run import run_tree
    from ciapp.testing.desk import Order

    status = run_tree(
        path,
        context.settings,
        Order(python=version, names=names),
        only_failed=only_failed,
        times=until_fail or 1,
        verbose=verbose,
        as_json=as_json,
        junit=junit,
    )
    sys.exit(status.exit_code)


@click.command("reproduce")
@REPO
@click.argument("rev")
@click.argument("test", default="")
@PYTHON
@click.option("--environment", default="", help="The run in one environment alone, by its name.")
@click.option("-v", "--verbose", is_flag=True, help="A line a test instead of a letter.")
@click.option("--shell", is_flag=True, help="Then open a shell in the sandbox.")
@JSON
@JUNIT
@pass_context
def reproduce_command(
    context: Context,
    repo: str,
    rev: str,
    test: str,
    version: str,
    environment: str,
    verbose: bool,
    shell: bool,
    as_json: bool,
    junit: Path | None,
) -> None:
    """Run a finished run again, or one TEST of it. Exits with the verdict."""
    from ciapp.desk.reproduce import reproduce_run

    database, repository, commit = context.find(repo, rev)
    runs = runs_of(database, repository, commit)
    run = _pick_run(runs, environment_of(version) if version else environment)
    status = reproduce_run(
        database,
        run,
        context.settings,
        test=test,
        verbose=verbose,
        shell=shell,
        as_json=as_json,
        junit=junit,
    )
    sys.exit(status.exit_code)


@click.command("init")
@click.argument("path", default=".", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
@click.option("--schema", is_flag=True, help="Write .ciapp.schema.json too, by which editors check it.")
@pass_context
def init_command(context: Context, path: Path, force: bool, schema: bool) -> None:
    """Write a commented .ciapp.toml from what is found at PATH."""
    from ciapp.testing.beginning import write_configuration
    from ciapp.testing.tree import find_tree

    for line in write_configuration(find_tree(path), force=force, with_schema=schema):
        click.echo(escape_line(line))


def _pick_run(runs: list[Run], environment: str) -> Run:
    found = [run for run in runs if environment in ("", run.environment)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(run.environment for run in runs)
    if environment:
        raise NoSuchRunError(
            f"commit {runs[0].commit[:12]} has no run in environment {environment!r}; it has {known}"
        )
    raise UsageError(
        f"commit {runs[0].commit[:12]} has several runs, {known}; give --python or --environment"
    )
