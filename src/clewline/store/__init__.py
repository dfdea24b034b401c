"""Content-addressed blobs, the catalog of records, and the lineage between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clewline.store.digest import Digest

if TYPE_CHECKING:
    from clewline.store.store import Store

__all__ = ["Digest", "Store"]


def __getattr__(name: str) -> Any:
    # What only reads the catalog must not load what writes it.
    if name == "Store":
        from clewline.store.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
