"""Search: who may find which resource, by what it is called and whom it is about. And when an
operator last had forgotten what was known of what an endpoint offers."""

import sqlalchemy as sa
from alembic import op

from broker.store import columns

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resource_identifier",
        sa.Column("identifier_hmac", sa.Text(), nullable=False),
        sa.Column("resource_id", columns.Id(), nullable=False),
        sa.PrimaryKeyConstraint("identifier_hmac", "resource_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "resource_viewer",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("resource_id", columns.Id(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("relation", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("authored_at", columns.Utc(), nullable=False),
        sa.Column("updated_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", "resource_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    for order in ("updated", "authored"):
        op.create_index(
            f"ix_viewer_{order}",
            "resource_viewer",
            ["organisation", "type", f"{order}_at", "resource_id"],
            unique=False,
        )
    op.create_index(
        "ix_resource_patient",
        "resource_index",
        ["patient_pseudonym"],
        unique=False,
        sqlite_where=sa.text("patient_pseudonym IS NOT NULL"),
        postgresql_where=sa.text("patient_pseudonym IS NOT NULL"),
    )
    op.create_table(
        "endpoint_refresh",
        sa.Column("ods", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("refreshed_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("ods", "service"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
