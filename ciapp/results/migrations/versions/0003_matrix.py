"""The environments that a worker takes runs of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Until it is heard of again, a worker takes what all of them took before."""
    op.add_column(
        "workers", sa.Column("environments", sa.JSON(), nullable=False, server_default='["default"]')
    )
