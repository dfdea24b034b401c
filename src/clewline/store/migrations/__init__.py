"""Versions of the catalog's schema; Alembic's scripts lie in `versions`."""
