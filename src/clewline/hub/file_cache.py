"""Files that were fetched, found again by the SHA-256 that pins them."""

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
    """Take a checked file into the store's blobs, durably."""
    kept = CachedFile(blob=store.blobs.put_file(path), origin=origin, filename=filename)
    store.blobs.flush()
    place = _place(store, origin.sha256)
    with disk_errors(place):
        place.parent.mkdir(exist_ok=True)
        replace_file(place, msgspec.json.encode(kept), durable=True)
    return kept


def find_cached(store: Store, sha256: str) -> CachedFile | None:
    """Find a file by its SHA-256; one whose blob is gone or damaged is not there."""
    try:
        kept = msgspec.json.decode(_place(store, sha256).read_bytes(), type=CachedFile)
        store.blobs.get(kept.blob)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ClewlineError):
        return None  # it is fetched once more
    return kept


def _place(store: Store, sha256: str) -> Path:
    return store.root / "hub" / f"{sha256}.json"
