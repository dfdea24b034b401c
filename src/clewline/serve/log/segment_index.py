"""
The index of a closed segment: the entries of all ids, sorted by id.

It is: magic (4 bytes), number of entries (4), end of the last whole frame (8), size of
the segment (8), CRC-32 of those and of the entries (4), then the entries, little endian.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clewline.serve.log.frame import ID_BYTES, find_frame
from clewline.serve.log.segment import (
    ENTRY,
    IndexEntry,
    Segment,
    all_segments,
    open_entries,
    read_if_there,
    read_keys,
)
from clewline.serve.log.windowed_file import WALK_BYTES, WindowedFile, open_windowed
from clewline.store.disk import replace_file

_MAGIC = b"\xf1FX1"
_HEAD = struct.Struct("<4sIQQ")
_CHECKSUM = struct.Struct("<I")
_BASE = _HEAD.size + _CHECKSUM.size


class SegmentIndex:
    """The entries of a closed segment, sorted by id; `end` is where its last whole frame ends."""

    def __init__(self, file: WindowedFile, count: int, end: int) -> None:
        self.end = end
        self._file, self._count = file, count

    def __getitem__(self, place: int) -> IndexEntry:
        start = _BASE + place * ENTRY.size
        return IndexEntry(*ENTRY.unpack(self._file.read(start, start + ENTRY.size)))

    @property
    def data(self) -> bytes:
        """All entries, 24 bytes each."""
        return self._file.read(_BASE, _BASE + self._count * ENTRY.size)

    def position(self, identifier: bytes) -> int:
        """Return the number of entries before an id."""

        def id_at(place: int) -> bytes:
            start = _BASE + place * ENTRY.size
            return self._file.read(start, start + ID_BYTES)

        return bisect_left(range(self._count), identifier, key=id_at)

    def find(self, identifier: bytes) -> IndexEntry | None:
        """Find the entry of an id."""
        place = self.position(identifier)
        found = self[place] if place < self._count else None
        return found if found is not None and found.id == identifier else None


def read_index(
    file: WindowedFile, frames_size: int, *, verify: bool = False
) -> SegmentIndex | None:
    """
    Read the index of a closed segment.

    Args:
        file: The index file.
        frames_size: The size of its segment now.
        verify: Also compare the entries with their checksum.

    Returns:
        The index; None if it is damaged or ends before the segment does.
    """
    head = file.read(0, _BASE)
    if len(head) < _BASE:
        return None
    magic, count, end, size = _HEAD.unpack_from(head)
    fits = len(file) == _BASE + count * ENTRY.size
    if magic != _MAGIC or size < frames_size or not fits:
        return None  # frames that were cut short since are still named, so that this is noticed
    index = SegmentIndex(file, count, end)
    if verify:
        (checksum,) = _CHECKSUM.unpack_from(head, _HEAD.size)
        if checksum != zlib.crc32(index.data, zlib.crc32(head[: _HEAD.size])):
            return None
    return index


def close_orphans(log: Path) -> list[Path]:
    """
    Close every segment of which the writer is dead.

    A segment that a living process writes is left alone. Nothing is cut off: a
    torn tail stays in its file, and the index says where the whole frames end.

    Returns:
        The frames of the segments that were closed.
    """
    closed = []
    for segment in all_segments(log):
        if segment.index is None:
            try:
                with _lock(segment.frames) as locked:
                    if locked:
                        close_segment(segment)
                        closed.append(segment.frames)
            except FileNotFoundError:
                continue  # another process closed or removed it meanwhile
    return closed


def is_alive(segment: Segment) -> bool:
    """Return whether a process is writing the segment."""
    with _lock(segment.frames) as locked:
        return not locked


def close_segment(segment: Segment) -> None:
    """
    Write the index of a segment that nobody writes any more, in one step.

    Raises:
        OSError: It cannot be written; the segment stays as it was.
    """
    ids = read_if_there(segment.ids)
    with open_windowed(segment.frames, WALK_BYTES) as frames:
        if not frames:
            segment.frames.unlink()
            return
        entries = open_entries(ids, frames)
        end, size = 0, len(frames)
        if entries:
            _, offset, _ = ENTRY.unpack_from(entries, len(entries) - ENTRY.size)
            last = find_frame(frames, offset)
            end = last.end if last else 0
        keys = read_keys(segment, ids, frames)
    if len(keys) > len(read_if_there(segment.keys)):
        replace_file(segment.keys, keys, durable=False)
    import numpy as np  # not needed to look up a prediction, which starts quickly

    table = np.frombuffer(entries, np.uint8).reshape(-1, ENTRY.size)
    high = table[:, :8].copy().view(">u8").ravel()
    low = table[:, 8:16].copy().view(">u8").ravel()
    ascending = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))
    ordered = entries if ascending.all() else table[np.lexsort((low, high))].tobytes()
    first, last_ms = ordered[:6].hex() or "0" * 12, ordered[-ENTRY.size :][:6].hex() or "0" * 12
    head = _HEAD.pack(_MAGIC, len(ordered) // ENTRY.size, end, size)
    checksum = _CHECKSUM.pack(zlib.crc32(ordered, zlib.crc32(head)))
    path = segment.frames.with_name(f"{segment.frames.stem}.{first}-{last_ms}.index")
    replace_file(path, head + checksum + ordered, durable=False)
    segment.ids.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(file)
