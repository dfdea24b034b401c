"""BLAKE3 digests: the identity of every value and every file."""

from __future__ import annotations

from pathlib import Path
from typing import NewType

from blake3 import blake3

Digest = NewType("Digest", str)
"""64 lower-case hexadecimal characters."""


def digest_bytes(data: bytes | memoryview) -> Digest:
    """
    Digest bytes.

    >>> digest_bytes(b"")[:16]
    'af1349b9f5f9a1a6'
    """
    return Digest(blake3(data).hexdigest())


def digest_file(path: Path) -> Digest:
    """Digest the bytes of a file, in pieces of 1 MiB."""
    hasher = blake3()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return Digest(hasher.hexdigest())
