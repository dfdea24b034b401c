"""Brings a catalog to our version of the schema; the versions are in `migrations/`."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from clewline.store.catalog import connect_to_write
from clewline.store.locks import hold_lock
from clewline.store.reader import BUSY_S, VERSIONS, connect, schema_version

if TYPE_CHECKING:
    from sqlalchemy import Engine

SCRIPTS = Path(__file__).parent / "migrations"
"""Where Alembic finds its environment and the versions."""


def is_current(path: Path) -> bool:
    """
    Return whether a catalog is at our version of the schema.

    Raises:
        StoreNewer: A newer clewline wrote it.
    """
    with closing(connect(path)) as connection:
        return schema_version(connection) == VERSIONS[-1]


def upgrade_catalog(path: Path, lock: Path, *, timeout_s: float = BUSY_S) -> None:
    """Make the catalog, or bring it to our version, whole or not at all."""
    with hold_lock(lock, timeout_s=timeout_s):
        if not path.exists():
            # SQLite would make it readable to all, and its log beside it in the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        elif is_current(path):
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
        database = engine(path)
        try:
            with database.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        finally:
            database.dispose()


def engine(path: Path) -> Engine:
    """Make an SQLAlchemy engine of a catalog file, whose transactions write from the start."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    made = create_engine("sqlite://", creator=lambda: connect_to_write(path), poolclass=StaticPool)
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return made
