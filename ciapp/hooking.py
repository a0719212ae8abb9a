"""The commands about a repository's hook."""

from __future__ import annotations

from pathlib import Path

import click

from ciapp.context import Context, pass_context
from ciapp.outlets.terminal import escape_line


@click.group()
def hook() -> None:
    """Install the hook in a repository, or remove it."""


@hook.command("install")
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--name", help="The repository's name in ciapp; its folder's name by default.")
@click.option("--test-tips", is_flag=True, help="Test the commits that branches and tags name now.")
@click.option("--test-since", metavar="REV", help="Test what branches and tags have had since REV.")
@click.option("--moved", is_flag=True, help="The repository of that name is here now, with its history.")
@pass_context
def hook_install(
    context: Context,
    repository: Path,
    name: str | None,
    test_tips: bool,
    test_since: str | None,
    moved: bool,
) -> None:
    """Install the hook in REPOSITORY. What is in it now counts as seen."""
    from ciapp.intake.register import install_and_register

    done = install_and_register(
        context.settings,
        context.ledger(),
        repository,
        name=name,
        test_tips=test_tips,
        test_since=test_since,
        moved=moved,
    )
    for line in done:
        click.echo(escape_line(line))


@hook.command("remove")
@click.argument("repository", type=click.Path(path_type=Path))
@pass_context
def hook_remove(context: Context, repository: Path) -> None:
    """Remove the hook from REPOSITORY, restore what was there. Its reports stay."""
    from ciapp.intake.hook import remove_hook

    for line in remove_hook(repository):
        click.echo(escape_line(line))
