"""
The format of a pack: many small blobs in one file that only grows.

A record is a header of 48 bytes (magic, checksum of the rest of the header,
length, digest) and the blob. A record whose end is missing was being written
when its process died: it is no blob, and nothing refers to it.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MAGIC = b"FLB1"
_HEADER = struct.Struct("<4sIQ32s")
_CHECKED = struct.Struct("<Q32s")
HEADER_BYTES = _HEADER.size


class Entry(NamedTuple):
    """Where a blob lies in its pack."""

    digest: bytes  # 32
    offset: int  # of the blob's first byte
    length: int


@dataclass(slots=True)
class Scan:
    """What a piece of a pack holds."""

    entries: list[Entry] = field(default_factory=list)
    end: int = 0  # where the last whole record ends
    damaged: list[int] = field(default_factory=list)  # offsets at which no header could be read
    torn: bool = False  # after the end stands the beginning of a record, and no more


def frame(digest: bytes, data: bytes) -> bytes:
    """Write one record."""
    checksum = zlib.crc32(_CHECKED.pack(len(data), digest))
    return _HEADER.pack(MAGIC, checksum, len(data), digest) + data


def scan(path: Path, start: int = 0) -> Scan:
    """Read the headers of a pack from an offset where a record begins."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= start:
            return Scan(end=start)
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as view:
            return _scan(view, start, size)


def _scan(view: mmap.mmap, start: int, size: int) -> Scan:
    result = Scan(end=start)
    position = start
    while position < size:
        entry = _entry(view, position, size)
        if entry is not None and entry.offset + entry.length <= size:
            result.entries.append(entry)
            position = result.end = entry.offset + entry.length
            continue
        following = _next_record(view, position + 1, size)
        if following is None:
            result.torn = entry is not None or _is_cut(view[position:size])
            if not result.torn:
                result.damaged.append(position)
            break
        result.damaged.append(position)
        position = following
    return result


def _entry(view: mmap.mmap, position: int, size: int) -> Entry | None:
    """The header at a position, if one stands there."""
    if position + HEADER_BYTES > size:
        return None
    magic, checksum, length, digest = _HEADER.unpack_from(view, position)
    if magic != MAGIC or checksum != zlib.crc32(_CHECKED.pack(length, digest)):
        return None
    return Entry(digest, position + HEADER_BYTES, length)


def _next_record(view: mmap.mmap, position: int, size: int) -> int | None:
    """Where the next whole record begins: a damaged header must not hide those behind it."""
    while (position := view.find(MAGIC, position)) >= 0:
        entry = _entry(view, position, size)
        if entry is not None and entry.offset + entry.length <= size:
            return position
        position += 1
    return None


def _is_cut(tail: bytes) -> bool:
    """Whether a tail is the beginning of a header, or the zeros that a power loss leaves."""
    begins = len(tail) < HEADER_BYTES and MAGIC.startswith(tail[: len(MAGIC)])
    return begins or not any(tail)
