"""
Segments of the prediction log: their names, and the index beside each.

    log/2026-11-21T02/                     the hour (UTC) in the ids of a segment's first frame
        019a…-7f3e21c4.frames              frames, one after another, only ever appended to
        019a…-7f3e21c4.ids                 while it is open: where each id is, in order of writing
        019a…-7f3e21c4.keys                the same for idempotency keys, only when there are any
        019a…-7f3e21c4.FIRST-LAST.index    once it is closed: sorted by id, named by the
                                           milliseconds of its least and greatest id

`.ids` and `.keys` may lag behind the frames: what they lack is found by walking
the frames from the last one they name. The frames alone are the truth; every
other file can be made again from them.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from clewline.serve.log.frame import (
    ID_BYTES,
    ByteSource,
    decode_frame,
    find_frame,
    frame_ids,
    key_hash,
    scan_frames,
)

HOUR_MS = 3_600_000
ENTRY = struct.Struct("<16sII")
"""Id or key, offset of the frame, position in it (the row, or the part of a key)."""

INDEX_MAGIC = b"\xf1FX1"
INDEX_HEAD = struct.Struct("<4sIQQ")
"""Magic, number of marks, end of the last whole frame, size of the segment."""
INDEX_CHECKSUM = struct.Struct("<I")
"""CRC-32 of the head and of the marks, which come after it."""
INDEX_BASE = INDEX_HEAD.size + INDEX_CHECKSUM.size


class IndexEntry(NamedTuple):
    """Where a prediction, or a request with an idempotency key, lies."""

    id: bytes
    offset: int
    position: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: `index` is its closed index, None while it is open or not yet recovered."""

    frames: Path
    index: Path | None
    first_ms: int
    last_ms: int

    @property
    def ids(self) -> Path:
        """Where the marks stand while it is open."""
        return self.frames.with_suffix(".ids")

    @property
    def keys(self) -> Path:
        """Where the idempotency keys stand."""
        return self.frames.with_suffix(".keys")


def hour_of(identifier: bytes) -> int:
    """Tell the hour of an id, in hours since the epoch."""
    return int.from_bytes(identifier[:6], "big") // HOUR_MS


def hour_folder(log: Path, hour: int) -> Path:
    """
    Name the folder of an hour.

    >>> hour_folder(Path("log"), 0).as_posix()
    'log/1970-01-01T00'
    """
    return log / time.strftime("%Y-%m-%dT%H", time.gmtime(hour * 3600))


def hours(log: Path) -> list[int]:
    """List the hours that have a folder, newest first."""
    found = []
    for name in _names(log):
        try:
            found.append(_hour(name))
        except ValueError:
            continue  # not one of ours: `parquet/`, or what a person put there
    return sorted(found, reverse=True)


def segments(log: Path, hour: int) -> list[Segment]:
    """List the segments of an hour, oldest first; an hour without a folder has none."""
    folder = hour_folder(log, hour)
    stems, indexes = [], {}
    for name in _names(folder):
        stem, _, rest = name.partition(".")
        if rest == "frames":
            stems.append(stem)
        elif rest.endswith(".index"):
            indexes[stem] = name
    return [_segment(folder, stem, indexes.get(stem)) for stem in sorted(stems)]


class SegmentIndex:
    """Marks sorted by id, as a closed index or a sorted open one holds them."""

    def __init__(self, source: ByteSource, base: int, count: int) -> None:
        self._source, self._base, self._count = source, base, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> IndexEntry:
        start = self._base + index * ENTRY.size
        return IndexEntry(*ENTRY.unpack(self._source.read(start, start + ENTRY.size)))

    @property
    def data(self) -> bytes:
        """All of them, 24 bytes each."""
        return self._source.read(self._base, self._base + self._count * ENTRY.size)

    def position(self, identifier: bytes) -> int:
        """Tell how many marks lie before an id."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._id(middle) < identifier:
                low = middle + 1
            else:
                high = middle
        return low

    def find(self, identifier: bytes) -> IndexEntry | None:
        """Find the mark of an id."""
        index = self.position(identifier)
        if index < self._count and self._id(index) == identifier:
            return self[index]
        return None

    def _id(self, index: int) -> bytes:
        start = self._base + index * ENTRY.size
        return self._source.read(start, start + ID_BYTES)


def index_marks(
    index: ByteSource, frames_size: int, *, verify: bool = False
) -> SegmentIndex | None:
    """
    Read a closed index.

    Args:
        index: The index file.
        frames_size: The size of its segment now.
        verify: Also hold the marks against their checksum.

    Returns:
        The marks; None when the index is damaged or does not reach the segment's end.
    """
    head = index.read(0, INDEX_BASE)
    if len(head) < INDEX_BASE:
        return None
    magic, count, _, size = INDEX_HEAD.unpack_from(head)
    fits = len(index) == INDEX_BASE + count * ENTRY.size
    if magic != INDEX_MAGIC or size < frames_size or not fits:
        return None  # frames cut short since are still named, so that their loss is noticed
    marks = SegmentIndex(index, INDEX_BASE, count)
    if verify:
        (checksum,) = INDEX_CHECKSUM.unpack_from(head, INDEX_HEAD.size)
        if checksum != _index_checksum(head[: INDEX_HEAD.size], marks.data):
            return None
    return marks


def index_bytes(marks: bytes, frames_end: int, frames_size: int) -> bytes:
    """Write the index of a segment from its sorted marks."""
    head = INDEX_HEAD.pack(INDEX_MAGIC, len(marks) // ENTRY.size, frames_end, frames_size)
    return head + INDEX_CHECKSUM.pack(_index_checksum(head, marks)) + marks


def frames_end(index: ByteSource) -> int:
    """Tell where the last whole frame ended when a segment was closed; a torn tail may follow."""
    return int(INDEX_HEAD.unpack(index.read(0, INDEX_HEAD.size))[2])


def covered(ids: bytes, frames: ByteSource) -> tuple[int, int]:
    """
    Tell how far an open index can be trusted.

    Returns:
        The bytes of `ids` to keep, and the offset of the first frame that they
        may lack. The last frame they name may be there in part, and counts as
        lacking.
    """
    size = len(ids) - len(ids) % ENTRY.size
    if not size:
        return 0, 0
    _, offset, position = ENTRY.unpack_from(ids, size - ENTRY.size)
    kept = size - (position + 1) * ENTRY.size
    if kept < 0 or find_frame(frames, offset) is None:
        return 0, 0  # not what a writer leaves behind: the frames tell it all again
    return kept, offset


def open_marks(ids: bytes, frames: ByteSource) -> bytes:
    """All marks of an open segment, in order of writing: from its index, then from its frames."""
    kept, offset = covered(ids, frames)
    return ids[:kept] + b"".join(_walked(frames, offset))


def key_tail(ids: bytes, frames: ByteSource) -> list[IndexEntry]:
    """The marks of idempotency keys in the frames that an open index may lack."""
    _, offset = covered(ids, frames)
    return [
        IndexEntry(key_hash(frame.endpoint, part.idempotency_key), slot.offset, index)
        for slot in scan_frames(frames, offset)
        if slot.keyed
        for frame in [decode_frame(frames, slot)]
        for index, part in enumerate(frame.parts)
        if part.idempotency_key is not None
    ]


def find_open(ids: bytes, frames: ByteSource, identifier: bytes) -> IndexEntry | None:
    """Find an id in an open segment."""
    kept, offset = covered(ids, frames)
    start = ids.find(identifier, 0, kept)
    while start >= 0 and start % ENTRY.size:
        start = ids.find(identifier, start + 1, kept)
    if start >= 0:
        return IndexEntry(*ENTRY.unpack_from(ids, start))
    for mark in _walked(frames, offset):
        if mark.startswith(identifier):
            return IndexEntry(*ENTRY.unpack(mark))
    return None


def _walked(frames: ByteSource, offset: int) -> Iterator[bytes]:
    for slot in scan_frames(frames, offset):
        ids = frame_ids(frames, slot)
        for row in range(slot.rows):
            yield ENTRY.pack(ids[row * ID_BYTES : (row + 1) * ID_BYTES], slot.offset, row)


def _index_checksum(head: bytes, marks: bytes) -> int:
    return zlib.crc32(marks, zlib.crc32(head))


def _segment(folder: Path, stem: str, index: str | None) -> Segment:
    frames = folder / f"{stem}.frames"
    if index is None:
        return Segment(frames, None, 0, 1 << 48)
    try:
        first, last = index.split(".")[1].split("-")
        return Segment(frames, folder / index, int(first, 16), int(last, 16))
    except ValueError:
        return Segment(frames, None, 0, 1 << 48)


def _hour(name: str) -> int:
    return int(datetime.strptime(name + "+0000", "%Y-%m-%dT%H%z").timestamp()) // 3600


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
