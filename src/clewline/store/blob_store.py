"""The contract of a store of blobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from clewline.store.digest import Digest


class BlobStore(Protocol):
    """
    Bytes under the digest of their content.

    May be used from any thread. What was put is visible at once in the process
    that put it, and durable and visible to all after `flush`; a process that is
    killed before loses it without a trace that anyone could mistake for a blob.
    What is read is verified. The shipped contract is `clewline.testing.blob_store`.

    Every write raises `StoreFull` when there is no space and `StoreReadOnly` when
    the store cannot be written; what was put before stays, and `flush` can be
    tried again.
    """

    def put(self, data: bytes) -> Digest:
        """Store bytes; the same ones again cost a comparison, and mend a damaged copy."""
        ...

    def put_file(self, path: Path) -> Digest:
        """Store the bytes of a file, however large, in pieces."""
        ...

    def get(self, digest: Digest) -> bytes:
        """
        Read a blob.

        Raises:
            BlobMissing: There is none under this digest.
            BlobCorrupt: Its bytes are not what was stored.
        """
        ...

    def has(self, digest: Digest) -> bool:
        """Whether there is a blob under this digest."""
        ...

    def copy_to(self, digest: Digest, path: Path) -> None:
        """Write a blob to a file, in pieces; the file appears whole and verified, or not at all."""
        ...

    def flush(self) -> None:
        """Make everything that was put durable, and visible to other processes."""
        ...

    def digests(self) -> Iterator[Digest]:
        """Give the digest of every blob, once each, in no order."""
        ...

    def close(self) -> None:
        """Flush, and let go of what is held."""
        ...
