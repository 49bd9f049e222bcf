"""Alembic's entry: runs on the connection that `broker.store.schema` hands it."""

from alembic import context

from broker.store.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
context.run_migrations()
