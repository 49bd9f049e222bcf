"""Which process of several does what only one should, where nothing is attempted, what was restored
from a backup; and indexes of what is due and of what stands in an inbox, however much is done."""

import sqlalchemy as sa
from alembic import op

from broker.store import columns

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", columns.Id(), nullable=False),
        sa.Column("held_until", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pause",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("ods", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("since", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("ods", "service"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "restoration",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("position", columns.Position(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("begun_at", columns.Utc(), nullable=False),
        sa.Column("reconciled_at", columns.Utc(), nullable=True),
        sa.Column("ended_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    for name, rows, ordered in (
        ("ix_delivery_queue", "state = 'due'", ["ods", "service", "priority_rank", "due_at"]),
        ("ix_delivery_open", "state <> 'done'", ["ods", "position", "id"]),
    ):
        where = sa.text(rows)
        op.create_index(name, "delivery", ordered, sqlite_where=where, postgresql_where=where)
