"""Downloaded files, found again by the SHA-256 that pins them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from clewline.errors import ClewlineError
from clewline.model.origin import Origin
from clewline.store.digest import Digest
from clewline.store.disk import disk_errors, replace_file
from clewline.store.store import Store


class CachedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose bytes are a blob of the store."""

    blob: Digest
    origin: Origin
    filename: str


def cache_file(store: Store, path: Path, origin: Origin, filename: str) -> CachedFile:
    """Copy a checked file into the store's blobs, durably."""
    file = CachedFile(blob=store.blobs.put_file(path), origin=origin, filename=filename)
    store.blobs.flush()
    record = _record_path(store, origin.sha256)
    with disk_errors(record):
        record.parent.mkdir(exist_ok=True)
        replace_file(record, msgspec.json.encode(file), durable=True)
    return file


def find_cached(store: Store, sha256: str) -> CachedFile | None:
    """Find a file by its SHA-256; None if there is none, or its blob is missing or damaged."""
    try:
        file = msgspec.json.decode(_record_path(store, sha256).read_bytes(), type=CachedFile)
        store.blobs.get(file.blob)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ClewlineError):
        return None  # it is fetched again
    return file


def _record_path(store: Store, sha256: str) -> Path:
    return store.root / "hub" / f"{sha256}.json"
