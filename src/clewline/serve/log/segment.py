"""
Segments of the prediction log: their names, and the entries that say where each id is.

    log/2026-11-21T02/                     the hour (UTC) in the ids of a segment's first frame
        019a…-7f3e21c4.frames              frames, one after another, only ever appended to
        019a…-7f3e21c4.ids                 while it is open: an entry for each id, as written
        019a…-7f3e21c4.keys                an entry for each idempotency key, if there is any
        019a…-7f3e21c4.FIRST-LAST.index    once it is closed: the entries sorted by id; named
                                           by the milliseconds of its least and greatest id

`.ids` and `.keys` may lag behind the frames: the rest is found by scanning the frames
from the last one that they name. The frames alone are the truth; every other file can
be made again from them.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from clewline.serve.log.frame import (
    ID_BYTES,
    LoggedBatch,
    decode_frame,
    find_frame,
    frame_ids,
    key_hash,
    scan_frames,
)
from clewline.serve.log.windowed_file import WindowedFile

HOUR_MS = 3_600_000
ENTRY = struct.Struct("<16sII")
"""Id or digest of a key, offset of the frame, position in it (the row, or the request)."""


class IndexEntry(NamedTuple):
    """Where a prediction, or a request with an idempotency key, stands in a segment."""

    id: bytes
    offset: int
    position: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment. `index` is None as long as it is open, or was not closed after a kill."""

    frames: Path
    index: Path | None = None
    first_ms: int = 0
    last_ms: int = 1 << 48

    @property
    def ids(self) -> Path:
        """The entries of its ids while it is open."""
        return self.frames.with_suffix(".ids")

    @property
    def keys(self) -> Path:
        """The entries of its idempotency keys."""
        return self.frames.with_suffix(".keys")


def hour_of(identifier: bytes) -> int:
    """Return the hour of an id, in hours since the epoch."""
    return int.from_bytes(identifier[:6], "big") // HOUR_MS


def hour_folder(log: Path, hour: int) -> Path:
    """
    Return the folder of an hour.

    >>> hour_folder(Path("log"), 0).as_posix()
    'log/1970-01-01T00'
    """
    return log / time.strftime("%Y-%m-%dT%H", time.gmtime(hour * 3600))


def hours(log: Path) -> list[int]:
    """List the hours that have a folder, newest first."""
    found = []
    for name in _names(log):
        with suppress(ValueError):  # not an hour: `parquet/`, or a user's file
            start = datetime.strptime(name + "+0000", "%Y-%m-%dT%H%z")
            found.append(int(start.timestamp()) // 3600)
    return sorted(found, reverse=True)


def segments(log: Path, hour: int, *, lost: bool = False) -> list[Segment]:
    """
    List the segments of an hour, oldest first; an hour without a folder has none.

    Args:
        log: The folder of the log.
        hour: Hours since the epoch.
        lost: List instead those of which only the index is left.
    """
    folder = hour_folder(log, hour)
    stems: set[str] = set()
    found: dict[str, Segment] = {}
    for name in sorted(_names(folder)):
        stem, _, rest = name.partition(".")
        frames = folder / f"{stem}.frames"
        if rest == "frames":
            stems.add(stem)
            found.setdefault(stem, Segment(frames))
        elif rest.endswith(".index"):
            with suppress(ValueError):
                first, last = rest.split(".")[0].split("-")
                found[stem] = Segment(frames, folder / name, int(first, 16), int(last, 16))
    return [segment for stem, segment in sorted(found.items()) if (stem in stems) is not lost]


def all_segments(log: Path, *, lost: bool = False) -> Iterator[Segment]:
    """List the segments of a log, oldest hour first; `lost` as in `segments`."""
    for hour in reversed(hours(log)):
        yield from segments(log, hour, lost=lost)


def id_entries(ids: bytes, offset: int) -> list[bytes]:
    """Encode the entries of the ids of a frame."""
    rows = range(len(ids) // ID_BYTES)
    return [ENTRY.pack(ids[r * ID_BYTES : (r + 1) * ID_BYTES], offset, r) for r in rows]


def key_entries(batch: LoggedBatch, offset: int) -> list[bytes]:
    """Encode the entries of the idempotency keys of a frame."""
    return [
        ENTRY.pack(key_hash(batch.endpoint, request.idempotency_key), offset, index)
        for index, request in enumerate(batch.requests)
        if request.idempotency_key is not None
    ]


def indexed_size(ids: bytes, frames: WindowedFile) -> tuple[int, int]:
    """
    Return how far an open index can be trusted.

    Returns:
        The number of bytes of `ids` to keep, and the offset of the first frame that they
        may lack. The last frame that they name may be there in part, and counts as lacking.
    """
    size = len(ids) - len(ids) % ENTRY.size
    if not size:
        return 0, 0
    _, offset, position = ENTRY.unpack_from(ids, size - ENTRY.size)
    kept = size - (position + 1) * ENTRY.size
    if kept < 0 or find_frame(frames, offset) is None:
        return 0, 0  # not written by a log writer: the frames have it all
    return kept, offset


def open_entries(ids: bytes, frames: WindowedFile) -> bytes:
    """Read the entries of all ids of an open segment, in order of writing."""
    kept, offset = indexed_size(ids, frames)
    spans = scan_frames(frames, offset)
    rest = [e for span in spans for e in id_entries(frame_ids(frames, span), span.offset)]
    return ids[:kept] + b"".join(rest)


def find_open(ids: bytes, frames: WindowedFile, identifier: bytes) -> IndexEntry | None:
    """Find an id in an open segment."""
    entries = open_entries(ids, frames)
    start = entries.find(identifier)
    while start >= 0 and start % ENTRY.size:
        start = entries.find(identifier, start + 1)
    return IndexEntry(*ENTRY.unpack_from(entries, start)) if start >= 0 else None


def read_keys(segment: Segment, ids: bytes, frames: WindowedFile) -> bytes:
    """Read the entries of all idempotency keys of a segment, in order of writing."""
    known = read_if_there(segment.keys)
    known = known[: len(known) - len(known) % ENTRY.size]
    if segment.index is not None:
        return known
    seen = {known[at : at + ENTRY.size] for at in range(0, len(known), ENTRY.size)}
    _, offset = indexed_size(ids, frames)
    rest = [
        entry
        for span in scan_frames(frames, offset)
        if span.keyed
        for entry in key_entries(decode_frame(frames, span), span.offset)
    ]
    return known + b"".join(entry for entry in rest if entry not in seen)


def read_if_there(path: Path) -> bytes:
    """Read a file; empty if it does not exist, because nothing was written or it was closed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
