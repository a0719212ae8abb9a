"""What every command starts from: the settings, the ledger, a repository and a commit as users call them."""

from __future__ import annotations

import click

from ciapp.errors import SettingsError
from ciapp.project import PYTHON_VERSION
from ciapp.results.database import Database
from ciapp.results.history import resolve_revision
from ciapp.results.pushes import KnownRepository, find_repository
from ciapp.settings import Settings, load_settings


class Context:
    """What every command starts from: settings, and a ledger whose tables are there."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug

    @property
    def settings(self) -> Settings:
        return load_settings()

    def ledger(self) -> Database:
        """The ledger, migrated. Raises SettingsError when its folder cannot be made."""
        try:
            database = Database(self.settings.database)
        except OSError as error:
            raise SettingsError(
                f"{error.filename} cannot be made: {error.strerror}; set state_dir elsewhere"
            ) from error
        database.migrate()
        return database

    def find(self, name: str, revision: str) -> tuple[Database, KnownRepository, str]:
        """A repository and a commit of it, by what the user called them."""
        database = self.ledger()
        repository = find_repository(database, name)
        return database, repository, resolve_revision(database, repository, revision, self.settings.host_name)


pass_context = click.make_pass_decorator(Context)
REPO = click.argument("repo")
REV = click.argument("rev", default="HEAD")


EACH_PYTHON = "all"


def _as_version(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    if value and not PYTHON_VERSION.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no version like 3.13")
    return value or ""


def _as_versions(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    return EACH_PYTHON if value == EACH_PYTHON else _as_version(context, parameter, value)


PYTHON = click.option(
    "--python", "version", metavar="V", callback=_as_version, help="The run under one Python alone: 3.13."
)
PYTHONS = click.option(
    "--python",
    "version",
    metavar="V|all",
    callback=_as_versions,
    help="Under one Python, 3.13, or under each that the project names.",
)
