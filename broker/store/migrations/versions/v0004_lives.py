"""What a referral's receiver made of its priority, when the patient was told the diagnosis, and who
else hears of a deadline that nobody meets; attachments; what threads are about; and an index by
which near-duplicates are found."""

import sqlalchemy as sa
from alembic import op

from broker.store import columns

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "triage",
        sa.Column("subject_id", columns.Id(), nullable=False),
        sa.Column("priority_asked", sa.Text(), nullable=True),
        sa.Column("priority_proposed", sa.Text(), nullable=True),
        sa.Column("diagnosed_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("subject_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "escalation",
        sa.Column("deadline_id", columns.Id(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("due_at", columns.Utc(), nullable=False),
        sa.Column("told_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("deadline_id", "step"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_escalation_due", "escalation", ["told_at", "due_at"])
    where = sa.text("patient_pseudonym IS NOT NULL")
    op.create_index(
        "ix_message_patient",
        "message",
        ["patient_pseudonym", "pathway", "accepted_at"],
        sqlite_where=where,
        postgresql_where=where,
    )
    op.create_table(
        "attachment",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.Column("expires_at", columns.Utc(), nullable=False),
        sa.Column("claimed_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    unclaimed = sa.text("claimed_at IS NULL")
    op.create_index(
        "ix_attachment_unclaimed",
        "attachment",
        ["expires_at"],
        sqlite_where=unclaimed,
        postgresql_where=unclaimed,
    )
    op.create_table(
        "attachment_key",
        sa.Column("attachment_id", columns.Id(), nullable=False),
        sa.Column("key_id", columns.Id(), nullable=False),
        sa.Column("sealed", columns.Sealed(), nullable=False),
        sa.PrimaryKeyConstraint("attachment_id", "key_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_attachment_key_key", "attachment_key", ["key_id"])
    op.create_table(
        "thread",
        sa.Column("subject_id", columns.Id(), nullable=False),
        sa.Column("about_subject", columns.Id(), nullable=False),
        sa.PrimaryKeyConstraint("subject_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_thread_about", "thread", ["about_subject"])
