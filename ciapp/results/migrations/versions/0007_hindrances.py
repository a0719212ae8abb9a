"""Why a worker takes no run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Until it is heard of again, a worker takes runs."""
    op.add_column("workers", sa.Column("hindrance", sa.Text(), nullable=False, server_default=""))
