"""What retention asks for: runs by when they finished, sizes of reports, commits whose runs are gone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ciapp.results.schema import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and indexes to the tables of version 1."""
    op.add_column("commits", sa.Column("purged_at", UtcDateTime(), nullable=True))
    op.create_index(op.f("ix_runs_repository_id_finished_at"), "runs", ["repository_id", "finished_at"])
    op.add_column("reports", sa.Column("size", sa.Integer(), server_default="0", nullable=False))
    op.execute("UPDATE reports SET size = length(document)")
    op.create_index(op.f("ix_reports_run_id_size"), "reports", ["run_id", "size"])
