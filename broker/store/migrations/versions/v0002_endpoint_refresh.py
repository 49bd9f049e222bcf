"""When an operator last had forgotten what was known of what an endpoint offers."""

import sqlalchemy as sa
from alembic import op

from broker.store import columns

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "endpoint_refresh",
        sa.Column("ods", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("refreshed_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("ods", "service"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
