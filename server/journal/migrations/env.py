"""Alembic runs this to migrate; `server.journal.migrate` gives it the connection, inside of a transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
context.run_migrations()
