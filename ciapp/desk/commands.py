"""The commands of a desk: run, reproduce, init."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ciapp.context import Context, pass_context


@click.command("run")
@click.argument("path", default=".", type=click.Path(path_type=Path))
@click.option("-k", "names", multiple=True, metavar="PATTERN", help="Only tests that unittest's -k takes.")
@click.option("--failed", "only_failed", is_flag=True, help="Only what failed when it last ran.")
@click.option("--until-fail", type=click.IntRange(1), metavar="N", help="Up to N runs, until one fails.")
@click.option("--python", metavar="VERSION", default="", help='The Python to use, as "3.12".')
@click.option("-v", "--verbose", is_flag=True, help="A line a test instead of a letter.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; all else goes to stderr.")
@click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML to FILE as well."
)
@pass_context
def run_command(
    context: Context,
    path: Path,
    names: tuple[str, ...],
    only_failed: bool,
    until_fail: int | None,
    python: str,
    verbose: bool,
    as_json: bool,
    junit: Path | None,
) -> None:
    """Test the working tree that PATH is in, as a worker would test it; exits with the verdict."""
    from ciapp.desk.run import run_tree
    from ciapp.testing.desk import Order

    status = run_tree(
        path,
        context.settings,
        Order(python=python, names=names),
        only_failed=only_failed,
        times=until_fail or 1,
        verbose=verbose,
        as_json=as_json,
        junit=junit,
    )
    sys.exit(status.exit_code)
