"""Closing a segment: its sorted index, made from what its writer left."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from clewline.serve.log.frame import ByteSource, find_frame
from clewline.serve.log.segment import (
    ENTRY,
    IndexEntry,
    Segment,
    hours,
    index_bytes,
    key_tail,
    open_marks,
    segments,
)
from clewline.serve.log.windowed_file import WALK_BYTES, open_windowed
from clewline.store.disk import replace_file


def close_orphans(log: Path) -> list[Segment]:
    """
    Close every segment whose writer is gone.

    A segment that a living process writes is left alone. Nothing is cut off: a
    torn tail stays in its file, and the index says where the whole frames end.

    Returns:
        The segments that were closed.
    """
    return [
        segment
        for hour in hours(log)
        for segment in segments(log, hour)
        if segment.index is None and _close_orphan(segment)
    ]


def is_alive(segment: Segment) -> bool:
    """Tell whether a process is writing the segment."""
    with _held(segment.frames) as held:
        return not held


def close_segment(segment: Segment) -> None:
    """
    Write the index of a segment that nobody writes any more, in one step.

    Raises:
        OSError: It cannot be written; the segment stays as it was.
    """
    ids = segment.ids.read_bytes() if segment.ids.exists() else b""
    with open_windowed(segment.frames, WALK_BYTES) as frames:
        if not frames:
            segment.frames.unlink()
            return
        marks = open_marks(ids, frames)
        ordered = _sorted(marks)
        data = index_bytes(ordered, _end(marks, frames), len(frames))
        tail = key_tail(ids, frames)
    _add_keys(segment, tail)
    _place(segment, ordered, data)
    segment.ids.unlink(missing_ok=True)


def _close_orphan(segment: Segment) -> bool:
    try:
        with _held(segment.frames) as held:
            if held:
                close_segment(segment)
            return held
    except FileNotFoundError:
        return False  # another process closed or removed it meanwhile


@contextmanager
def _held(path: Path) -> Iterator[bool]:
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


def _end(marks: bytes, frames: ByteSource) -> int:
    if not marks:
        return 0
    _, offset, _ = ENTRY.unpack_from(marks, len(marks) - ENTRY.size)
    last = find_frame(frames, offset)
    return last.end if last else 0


def _sorted(marks: bytes) -> bytes:
    table = np.frombuffer(marks, np.uint8).reshape(-1, ENTRY.size)
    high = table[:, :8].copy().view(">u8").ravel()
    low = table[:, 8:16].copy().view(">u8").ravel()
    ascending = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))
    return marks if ascending.all() else table[np.lexsort((low, high))].tobytes()


def _add_keys(segment: Segment, tail: list[IndexEntry]) -> None:
    known = segment.keys.read_bytes() if segment.keys.exists() else b""
    known = known[: len(known) - len(known) % ENTRY.size]
    seen = set(ENTRY.iter_unpack(known))
    new = b"".join(ENTRY.pack(*mark) for mark in tail if mark not in seen)
    if new:
        replace_file(segment.keys, known + new, durable=False)


def _place(segment: Segment, ordered: bytes, data: bytes) -> None:
    first = int.from_bytes(ordered[:6], "big")
    last = int.from_bytes(ordered[-ENTRY.size :][:6], "big")
    name = f"{segment.frames.stem}.{first:012x}-{last:012x}.index"
    replace_file(segment.frames.with_name(name), data, durable=False)
