"""How often a run's repository was away since somebody asked for the run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Runs that wait for their repository now are given all their time once more."""
    op.add_column("runs", sa.Column("absences", sa.Integer(), nullable=False, server_default="0"))
