"""Checking the prediction log: damaged frames, torn tails, indexes that do not fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from clewline.project import Project
from clewline.serve.log.closing import close_orphans, is_alive
from clewline.serve.log.frame import FrameSpan, scan_frames
from clewline.serve.log.segment import (
    ENTRY,
    Segment,
    frames_end,
    hours,
    index_marks,
    open_marks,
    segments,
)
from clewline.serve.log.windowed_file import WALK_BYTES, open_windowed
from clewline.store.disk import disk_errors
from clewline.store.doctor import Finding

YOUNG_S = 3600.0
_BACKUP = (
    "Bring the file back from a backup; without one, what stood in that frame is lost, "
    "and every other prediction is found."
)
_MEND = "`clewline doctor --mend` makes it again from the frames, which are whole."


def check_log(project: Project, *, deep: bool = True) -> list[Finding]:
    """
    Check the prediction log of a project. Reads only; a running server may go on.

    Args:
        project: Whose log.
        deep: Verify every frame, and hold every index against its frames.
    """
    found: list[Finding] = []
    for log in (project.log, project.shadow):
        found += [finding for segment in _segments(log) for finding in _check(segment, deep=deep)]
        found += [_leftover(path) for path in _leftovers(log)]
    return found


def fix_log(project: Project) -> None:
    """
    Mend what needs no judgement: indexes, and segments whose writer was killed.

    Raises:
        StoreFull, StoreReadOnly: The log cannot be written; nothing is lost.
    """
    for log in (project.log, project.shadow):
        with disk_errors(log):
            _mend(log)


def _mend(log: Path) -> None:
    for segment in _segments(log):
        if segment.index is not None and not _fits(segment):
            segment.index.unlink()
    close_orphans(log)
    for path in _leftovers(log):
        path.unlink(missing_ok=True)


def _segments(log: Path) -> Iterator[Segment]:
    for hour in reversed(hours(log)):
        yield from segments(log, hour)


def _check(segment: Segment, *, deep: bool) -> Iterator[Finding]:
    if segment.index is None:
        yield from _check_open(segment)
        return
    end = _end(segment)
    if end is None or (deep and not _fits(segment)):
        yield Finding("damaged index", f"{segment.index} does not fit its frames.", _MEND)
    with open_windowed(segment.frames, WALK_BYTES) as frames:
        size = len(frames)
        slots = list(scan_frames(frames)) if deep else []
    if deep:
        last = slots[-1].end if slots else 0
        yield from (_damage(segment, *gap) for gap in _gaps(slots, last if end is None else end))
    elif end is not None and end > size:
        yield _damage(segment, size, end)


def _check_open(segment: Segment) -> Iterator[Finding]:
    try:
        if is_alive(segment):
            return
        with open_windowed(segment.frames, WALK_BYTES) as frames:
            size, slots = len(frames), list(scan_frames(frames))
    except FileNotFoundError:
        return  # closed or removed by its writer meanwhile
    end = slots[-1].end if slots else 0
    yield from (_damage(segment, *gap) for gap in _gaps(slots, end))
    if end < size:
        yield Finding(
            "half-written record",
            f"{segment.frames} ends in the middle of a frame, at byte {end} of {size}: its writer "
            "was killed before anything in that frame was answered.",
            "Readers skip it; `clewline doctor --mend` or the next start of a server closes it.",
        )


def _gaps(slots: list[FrameSpan], end: int) -> Iterator[tuple[int, int]]:
    """The stretches up to `end` that belong to no whole frame."""
    last = 0
    for slot in slots:
        if slot.offset > last:
            yield last, slot.offset
        last = slot.end
    if last < end:
        yield last, end


def _damage(segment: Segment, start: int, end: int) -> Finding:
    return Finding(
        "flipped byte",
        f"{segment.frames} is damaged between byte {start} and byte {end}: "
        "a frame there does not match its checksum.",
        _BACKUP,
    )


def _end(segment: Segment) -> int | None:
    """Where the last whole frame ended when the segment was closed; None if no index says."""
    assert segment.index is not None
    with open_windowed(segment.frames, WALK_BYTES) as frames, open_windowed(segment.index) as index:
        marks = index_marks(index, len(frames), verify=True)
        return None if marks is None else frames_end(index)


def _fits(segment: Segment) -> bool:
    """Tell whether an index is whole and names every prediction of its frames."""
    assert segment.index is not None
    with open_windowed(segment.frames, WALK_BYTES) as frames, open_windowed(segment.index) as index:
        marks = index_marks(index, len(frames), verify=True)
        return marks is not None and _pieces(open_marks(b"", frames)) <= _pieces(marks.data)


def _pieces(marks: bytes) -> set[bytes]:
    return {marks[start : start + ENTRY.size] for start in range(0, len(marks), ENTRY.size)}


def _leftovers(log: Path) -> list[Path]:
    """Files that a writer was about to put in place when it was killed."""
    before = time.time() - YOUNG_S
    return [path for path in sorted(log.rglob("*.tmp")) if path.stat().st_mtime < before]


def _leftover(path: Path) -> Finding:
    return Finding(
        "half-written record",
        f"{path} was being written when its process died.",
        "Nothing refers to it; `clewline doctor --mend` removes it.",
    )
