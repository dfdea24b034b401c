"""The store of a project: records in the catalog, bytes in the blobs."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from clewline.errors import NotFound
from clewline.store.blobs import FileBlobStore
from clewline.store.catalog import Catalog
from clewline.store.disk import disk_errors, make_folder, sync_folder
from clewline.store.reader import FILE, require_writable
from clewline.store.recorder import Recorder
from clewline.store.records import Record
from clewline.store.upgrade import is_current, upgrade_catalog

FOLDERS = ("blobs", "models", "log", "keys", "tmp", "locks")


class Store:
    """
    What a project has recorded.

    May be used from any thread, by any number of processes at once. A record is durable only
    after the blobs that it names.
    """

    def __init__(self, root: Path) -> None:
        """Open a store that is there and at our version; `open` checks both."""
        self.root = root
        self.blobs = FileBlobStore(root / "blobs")
        lock = root / "locks" / "catalog"
        self.catalog = Catalog(root / FILE, lock, before_write=self._drain_recorders)
        self._recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()

    @classmethod
    def create(cls, root: Path) -> Store:
        """
        Make a store that only its owner can read, or open the one that is there.

        Raises:
            StoreFull, StoreReadOnly: It cannot be written.
            StoreNewer: A newer clewline wrote the catalog that is there.
        """
        _make_folders(root)
        upgrade_catalog(root / FILE, root / "locks" / "upgrade")
        with disk_errors(root):
            sync_folder(root)
        return cls(root)

    @classmethod
    def open(cls, root: Path, *, write: bool = True) -> Store:
        """
        Open a store.

        Args:
            root: The folder `.clewline` of a project.
            write: Whether it will be written; then an older catalog is upgraded.

        Raises:
            NotFound: There is no store.
            StoreNewer: A newer clewline wrote the catalog.
            StoreReadOnly: It is to be written and cannot be, or is older and cannot be upgraded.
        """
        path = root / FILE
        with disk_errors(path):
            is_there = path.is_file()
        if not is_there:
            raise NotFound(
                f"There is no store at {root}.",
                "`clewline init` makes a project, or completes a clone.",
            )
        if write:
            require_writable(path)
            if not all((root / name).is_dir() for name in (*FOLDERS, "blobs/packs")):
                _make_folders(root)  # a copy or a backup may have left empty ones out
        if not is_current(path):
            upgrade_catalog(path, root / "locks" / "upgrade")
        return cls(root)

    def record(self, *records: Record) -> None:
        """
        Make blobs durable, then all these records in one transaction.

        Raises:
            Conflict: A record that never changes is there with other content.
            NotFound: A record refers to one that is not there.
            StoreFull: The disk is full; none of them was recorded.
            StoreReadOnly: The store cannot be written.
        """
        self._drain_recorders()
        self._write(records)

    def recorder(self) -> Recorder:
        """Begin to record in groups, on a thread; drain or close it at the end."""
        recorder = Recorder(self._write)
        self._recorders.add(recorder)
        return recorder

    def close(self) -> None:
        """Make everything durable and close all files and connections, whatever fails."""
        with ExitStack() as last_first:
            last_first.callback(self.catalog.close)
            last_first.callback(self.blobs.close)
            for recorder in list(self._recorders):
                last_first.callback(recorder.close)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, records: Sequence[Record]) -> None:
        self.blobs.flush()
        with self.catalog.transaction(settle=False) as transaction:
            transaction.record(*records)

    def _drain_recorders(self) -> None:
        for recorder in list(self._recorders):
            recorder.drain()


def _make_folders(root: Path) -> None:
    with disk_errors(root):
        for folder in (root, *(root / name for name in FOLDERS)):
            make_folder(folder)
    FileBlobStore.create(root / "blobs")
