"""What reuse of results asks for: what a report's verdict depends on, and whose result a run has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns and an index to the tables; older reports stand for nobody but themselves."""
    op.add_column("runs", sa.Column("fresh", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("runs", sa.Column("reused_from", sa.String(64), server_default="", nullable=False))
    op.add_column("reports", sa.Column("fingerprint", sa.String(64), server_default="", nullable=False))
    op.add_column("reports", sa.Column("evidence", sa.String(8), server_default="", nullable=False))
    op.create_index(op.f("ix_reports_fingerprint"), "reports", ["fingerprint"])
