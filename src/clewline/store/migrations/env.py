"""Alembic's entry: runs the migrations over the connection that `upgrade_catalog` passes."""

from alembic import context

from clewline.store.migrations.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
