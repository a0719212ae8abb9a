"""What Alembic runs for each command: the connection comes from `ciapp.results.migrations.upgrade`."""

from __future__ import annotations

from alembic import context

from ciapp.results.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
