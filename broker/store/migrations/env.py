"""Alembic's entry: runs on the connection that `broker.store.schema` hands it."""

from alembic import context

from broker.crashpoints import crashpoint
from broker.store.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    transactional_ddl=True,
    on_version_apply=lambda **_: crashpoint("migrate.applied"),
)
context.run_migrations()
