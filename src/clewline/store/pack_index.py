"""
The index beside a pack: its digests, sorted, so that opening a store reads no pack.

It holds nothing that the pack does not say itself. A pack that grew since is
read from where the index ends; a missing or damaged index is written again.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

from clewline.store.disk import replace_file
from clewline.store.pack import Entry

_MAGIC = b"FLX1"
_HEAD = struct.Struct("<4sIQQ")  # magic, checksum of the rest, covered, count
_PLACE = struct.Struct("<QQ")
_DIGEST_BYTES = 32


class PackIndex:
    """The index of the first `covered` bytes of a pack."""

    def __init__(self, view: mmap.mmap, covered: int, count: int) -> None:
        self._view, self.covered, self.count = view, covered, count

    def find(self, digest: bytes) -> Entry | None:
        """Where a blob lies; None when the pack did not hold it."""
        at = bisect_left(range(self.count), digest, key=self._digest)
        if at == self.count or self._digest(at) != digest:
            return None
        return self._entry(at)

    def __iter__(self) -> Iterator[Entry]:
        return map(self._entry, range(self.count))

    def _digest(self, at: int) -> bytes:
        start = _HEAD.size + at * _DIGEST_BYTES
        return self._view[start : start + _DIGEST_BYTES]

    def _entry(self, at: int) -> Entry:
        places = _HEAD.size + self.count * _DIGEST_BYTES
        offset, length = _PLACE.unpack_from(self._view, places + at * _PLACE.size)
        return Entry(self._digest(at), offset, length)


def read_index(path: Path) -> PackIndex | None:
    """Open an index; None when there is none, or it is not whole."""
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):  # ValueError: an empty file cannot be mapped
        return None
    if len(view) < _HEAD.size:
        return None
    magic, checksum, covered, count = _HEAD.unpack_from(view)
    whole = len(view) == _HEAD.size + count * (_DIGEST_BYTES + _PLACE.size)
    if magic != _MAGIC or not whole or checksum != zlib.crc32(memoryview(view)[8:]):
        return None
    return PackIndex(view, covered, count)


def write_index(path: Path, entries: Iterable[Entry], covered: int) -> None:
    """Write the index of a pack whose first `covered` bytes are durable."""
    ordered = sorted(entries)
    rest = b"".join(
        (
            struct.pack("<QQ", covered, len(ordered)),
            *(entry.digest for entry in ordered),
            *(_PLACE.pack(entry.offset, entry.length) for entry in ordered),
        )
    )
    # Not synchronised: after a power loss it is whole or found not to be, and written again.
    replace_file(path, _MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest, durable=False)
