"""Bring a database from any earlier version's tables to this version's, through Alembic.

Each module in `versions/` is one step. They run in the caller's transaction, so a step that fails leaves
the database as it was.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ciapp.errors import LedgerError


def upgrade(connection: Connection, address: str, revision: str = "head") -> None:
    """Run the steps that are missing. Raises LedgerError when the database knows steps that we do not."""
    config = _config()
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known_revisions():
        raise LedgerError(
            f"ledger {address} is at version {current}, made by a newer ciapp; install that version here"
        )
    command.upgrade(config, revision)


def known_revisions() -> set[str]:
    """The versions of the tables that this ciapp can make."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
