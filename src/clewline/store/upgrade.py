"""Bringing a catalog to the version of the schema that this clewline knows."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from clewline.store import locks, reader
from clewline.store.disk import disk_errors


def is_current(path: Path) -> bool:
    """
    Tell whether a catalog is at our version.

    Raises:
        StoreNewer: A newer clewline wrote it.
    """
    with closing(reader.connect(path)) as connection:
        return reader.version(connection) == reader.VERSIONS[-1]


def upgrade(path: Path, lock: Path, *, timeout_s: float = reader.BUSY_S) -> None:
    """Make the catalog, or bring it to our version, whole or not at all."""
    with locks.hold(lock, timeout_s=timeout_s):
        if not path.exists() or not is_current(path):
            _migrate(path)


def _migrate(path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    from clewline.store.catalog import engine

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%")
    )
    database = engine(path)
    try:
        with database.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.dispose()


def require_writable(root: Path) -> None:
    """
    Check that a store can be written.

    Raises:
        StoreReadOnly: Its medium or its permissions forbid it.
    """
    with disk_errors(root):
        os.close(os.open(root / reader.FILE, os.O_RDWR | os.O_CLOEXEC))
