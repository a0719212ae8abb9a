"""What a restored ledger asks for: above which number its attempts are counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ciapp.results.schema import Id, UtcDateTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a table, empty: of restores by earlier versions nothing is known."""
    op.create_table(
        "restores",
        sa.Column("id", Id, nullable=False),
        sa.Column("restored_at", UtcDateTime(), nullable=False),
        sa.Column("made_at", UtcDateTime(), nullable=False),
        sa.Column("floor", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restores")),
    )
