"""Numbers of runs that SQLite gives out once, as PostgreSQL does."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make SQLite's table of runs anew, as nothing else makes a column count on; its rows stay as they are.

    With foreign keys in force, attempts and reports would go with the old table: see `Database.rebuild`.
    """
    if op.get_bind().dialect.name != "sqlite":
        return
    enforced = op.get_bind().exec_driver_sql("PRAGMA foreign_keys").scalar()
    assert not enforced, "reports would be deleted"
    with op.batch_alter_table("runs", recreate="always", table_kwargs={"sqlite_autoincrement": True}):
        pass
