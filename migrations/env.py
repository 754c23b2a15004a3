"""Alembic's environment: one history, run inside the transaction that `gateway.schema` opened."""

from alembic import context

from gateway.schema import compare_options

connection = context.config.attributes["connection"]
context.configure(connection=connection, **compare_options())
context.run_migrations()
