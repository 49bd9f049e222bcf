"""The spine: ledger, messages, deliveries, decisions, deadlines, callers, directory."""

import sqlalchemy as sa
from alembic import op

from broker.store import columns

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("delivery_id", columns.Id(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("started_at", columns.Utc(), nullable=False),
        sa.Column("ended_at", columns.Utc(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), autoincrement=False, nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", "number"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
        sa.Column("seq", columns.Position(), autoincrement=False, nullable=False),
        sa.Column("time", columns.Utc(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("facts", columns.Codes(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_strict=True,
    )
    op.create_index("ix_audit_object", "audit", ["object_id"], unique=False)
    op.create_table(
        "client",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("algorithms", columns.Codes(), nullable=False),
        sa.Column("scopes", columns.Codes(), nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.Column("disabled_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "client_key",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("jwk", columns.Codes(), nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.Column("revoked_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("client_id", "kid"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cursor",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", columns.Position(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "deadline",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("message_id", columns.Id(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("due_at", columns.Utc(), nullable=False),
        sa.Column("cleared_at", columns.Utc(), nullable=True),
        sa.Column("lapsed", sa.Text(), nullable=True),
        sa.Column("raised_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("message_id", "kind", "version", name="uq_deadline"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_deadline_due", "deadline", ["cleared_at", "raised_at", "due_at"], unique=False
    )
    op.create_table(
        "decision",
        sa.Column("delivery_id", columns.Id(), nullable=False),
        sa.Column("message_id", columns.Id(), nullable=False),
        sa.Column("subject_id", columns.Id(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("said_hmac", sa.Text(), nullable=False),
        sa.Column("event_id", columns.Id(), nullable=False),
        sa.Column("decided_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_decision_message", "decision", ["message_id"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("event_id", columns.Id(), nullable=False),
        sa.Column("position", columns.Position(), autoincrement=False, nullable=False),
        sa.Column("subject_id", columns.Id(), nullable=False),
        sa.Column("subject_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("message_id", columns.Id(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("ods", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("priority_rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("held_reason", sa.Text(), nullable=True),
        sa.Column("done_reason", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("due_at", columns.Utc(), nullable=False),
        sa.Column("first_due_at", columns.Utc(), nullable=False),
        sa.Column("lease_until", columns.Utc(), nullable=True),
        sa.Column("lease_by", columns.Id(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("consent", columns.Flag(), nullable=False),
        sa.Column("agreement", sa.Text(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.Column("collected_at", columns.Utc(), nullable=True),
        sa.Column("received_at", columns.Utc(), nullable=True),
        sa.Column("settled_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_delivery_due", "delivery", ["state", "priority_rank", "due_at"], unique=False
    )
    op.create_index("ix_delivery_event", "delivery", ["event_id"], unique=False)
    op.create_index("ix_delivery_inbox", "delivery", ["ods", "position", "id"], unique=False)
    op.create_index(
        "ix_delivery_lane",
        "delivery",
        ["ods", "service", "subject_id", "subject_seq"],
        unique=False,
    )
    op.create_index("ix_delivery_lease", "delivery", ["lease_until"], unique=False)
    op.create_index("ix_delivery_message", "delivery", ["message_id"], unique=False)
    op.create_table(
        "directory",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("entry", columns.Codes(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "code"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "directory_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("loaded_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "endpoint_state",
        sa.Column("ods", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("open_until", columns.Utc(), nullable=True),
        sa.Column("updated_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("ods", "service"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event",
        sa.Column("position", columns.Position(), autoincrement=False, nullable=False),
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("subject_id", columns.Id(), nullable=False),
        sa.Column("subject_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", columns.Utc(), nullable=False),
        sa.Column("dataschema", sa.Text(), nullable=False),
        sa.Column("message_id", columns.Id(), nullable=True),
        sa.Column("correlation_id", columns.Id(), nullable=True),
        sa.Column("causation_id", columns.Id(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("facts", columns.Codes(), nullable=False),
        sa.Column("routes", columns.Codes(), nullable=False),
        sa.PrimaryKeyConstraint("position"),
        sa.UniqueConstraint("id", name="uq_event_id"),
        sa.UniqueConstraint("subject_id", "subject_seq", name="uq_event_subject_seq"),
        sqlite_strict=True,
    )
    op.create_table(
        "grant",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("valid_from", columns.Utc(), nullable=False),
        sa.Column("valid_to", columns.Utc(), nullable=True),
        sa.Column("revoked_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("client_id", "organisation"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "idempotency_key",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("key_hmac", sa.Text(), nullable=False),
        sa.Column("body_hmac", sa.Text(), nullable=False),
        sa.Column("owner_id", columns.Id(), nullable=False),
        sa.Column("status", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", "family", "key_hmac"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "jti",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("expires_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "jti"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_jti_expires", "jti", ["expires_at"], unique=False)
    op.create_table(
        "key_check",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("check_value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "ledger_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", columns.Position(), autoincrement=False, nullable=False),
        sa.Column("audit_seq", columns.Position(), autoincrement=False, nullable=False),
        sa.Column("audit_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "message",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("subject_id", columns.Id(), nullable=True),
        sa.Column("event_id", columns.Id(), nullable=True),
        sa.Column("key_id", columns.Id(), nullable=True),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("reference_hmac", sa.Text(), nullable=True),
        sa.Column("body_hmac", sa.Text(), nullable=True),
        sa.Column("correlation_id", columns.Id(), nullable=False),
        sa.Column("replaces", columns.Id(), nullable=True),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("pathway", sa.Text(), nullable=False),
        sa.Column("pathway_version", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("practice", sa.Text(), nullable=True),
        sa.Column("patient_pseudonym", sa.Text(), nullable=True),
        sa.Column("pseudonym_key", sa.Text(), nullable=True),
        sa.Column("identity_verified", columns.Flag(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("consent", columns.Flag(), nullable=False),
        sa.Column("agreement", sa.Text(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("warnings", columns.Codes(), nullable=False),
        sa.Column("clinical_at", columns.Utc(), nullable=False),
        sa.Column("accepted_at", columns.Utc(), nullable=False),
        sa.Column("closed_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("sender", "reference_hmac", name="uq_message_reference"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_message_correlation", "message", ["correlation_id"], unique=False)
    op.create_index("ix_message_replaces", "message", ["replaces"], unique=False)
    op.create_index("ix_message_sender", "message", ["sender", "accepted_at", "id"], unique=False)
    op.create_index("ix_message_subject", "message", ["subject_id", "accepted_at"], unique=False)
    op.create_table(
        "message_key",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("wrapped", columns.Sealed(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "payload",
        sa.Column("owner_id", columns.Id(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key_id", columns.Id(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", columns.Sealed(), nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "role", "version"),
        sqlite_strict=True,
    )
    op.create_table(
        "receipt",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("delivery_id", columns.Id(), nullable=False),
        sa.Column("named_delivery", sa.Text(), nullable=False),
        sa.Column("named_digest", sa.Text(), nullable=False),
        sa.Column("named_ods", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("matches", columns.Flag(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.Column("received_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_receipt_delivery", "receipt", ["delivery_id"], unique=False)
    op.create_table(
        "referral",
        sa.Column("subject_id", columns.Id(), nullable=False),
        sa.Column("message_id", columns.Id(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("receiver_service", sa.Text(), nullable=False),
        sa.Column("practice", sa.Text(), nullable=True),
        sa.Column("pathway", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("state_before", sa.Text(), nullable=True),
        sa.Column("last_move", sa.Text(), nullable=True),
        sa.Column("last_move_by", sa.Text(), nullable=True),
        sa.Column("last_move_at", columns.Utc(), nullable=True),
        sa.Column("last_move_hmac", sa.Text(), nullable=True),
        sa.Column("last_event_id", columns.Id(), nullable=True),
        sa.Column("redirected_to", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("subject_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_referral_receiver", "referral", ["receiver", "state"], unique=False)
    op.create_table(
        "resource_index",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("message_id", columns.Id(), nullable=False),
        sa.Column("event_id", columns.Id(), nullable=False),
        sa.Column("subject_id", columns.Id(), nullable=False),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=True),
        sa.Column("requester", sa.Text(), nullable=True),
        sa.Column("performer", sa.Text(), nullable=True),
        sa.Column("patient_pseudonym", sa.Text(), nullable=True),
        sa.Column("identifiers", columns.Codes(), nullable=True),
        sa.Column("authored_at", columns.Utc(), nullable=True),
        sa.Column("updated_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", "version"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_resource_message", "resource_index", ["message_id"], unique=False)
    op.create_table(
        "subject",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("last_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dispatched_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "telephone_call",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("message_id", columns.Id(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("called_at", columns.Utc(), nullable=False),
        sa.Column("recorded_at", columns.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_telephone_call_message", "telephone_call", ["message_id"], unique=False)
    op.create_table(
        "webhook_secret",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("ods", sa.Text(), nullable=False),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("sealed", columns.Sealed(), nullable=False),
        sa.Column("created_at", columns.Utc(), nullable=False),
        sa.Column("retired_at", columns.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_webhook_secret_ods", "webhook_secret", ["ods"], unique=False)
    op.create_table(
        "work_item",
        sa.Column("id", columns.Id(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("object_id", columns.Id(), nullable=False),
        sa.Column("message_id", columns.Id(), nullable=True),
        sa.Column("delivery_id", columns.Id(), nullable=True),
        sa.Column("organisation", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("priority_rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("due_at", columns.Utc(), nullable=False),
        sa.Column("opened_at", columns.Utc(), nullable=False),
        sa.Column("closed_at", columns.Utc(), nullable=True),
        sa.Column("closed_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("code", "object_id", name="uq_work_item"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_work_item_message", "work_item", ["message_id"], unique=False)
    op.create_index(
        "ix_work_item_open", "work_item", ["closed_at", "priority_rank", "due_at"], unique=False
    )
