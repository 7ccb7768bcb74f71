"""Alembic's entry: runs the migrations on the connection, in the transaction, that ``farm/schema.py`` hands over."""

from alembic import context

import schemas.web_tables  # noqa: F401  their tables are of the same metadata
from schemas.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
)
context.run_migrations()
