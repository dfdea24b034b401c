"""Alembic's environment, the schema, and its versions."""
