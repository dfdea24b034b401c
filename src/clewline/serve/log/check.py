"""Checks the prediction log: damaged frames, lost segments, torn tails, indexes that do not fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from clewline.project import Project
from clewline.serve.log.frame import FrameSpan, scan_frames
from clewline.serve.log.segment import ENTRY, Segment, all_segments, open_entries
from clewline.serve.log.segment_index import close_orphans, is_alive, read_index
from clewline.serve.log.windowed_file import WALK_BYTES, open_windowed
from clewline.store.disk import disk_errors
from clewline.store.doctor import Finding

YOUNG_S = 3600.0
"""A temporary file younger than this may still be in use."""


def check_log(project: Project, *, deep: bool = True) -> list[Finding]:
    """
    Check the prediction log of a project. Reads only; a server may run meanwhile.

    Args:
        project: The project with the log.
        deep: Verify every frame, and compare every index with its frames.
    """
    found: list[Finding] = []
    for log in (project.log, project.shadow):
        for segment in all_segments(log):
            found += _check(segment, deep=deep)
        for segment in all_segments(log, lost=True):
            values = {"path": str(segment.frames), "index": str(segment.index)}
            found.append(Finding("lost_log_segment", values))
        for path in _leftovers(log):
            found.append(Finding("unfinished_log_file", {"path": str(path)}, fixable=True))
    return found


def fix_log(project: Project) -> None:
    """
    Rebuild damaged indexes, and close the segments of killed writers.

    Raises:
        StoreFull, StoreReadOnly: The log cannot be written; nothing is lost.
    """
    for log in (project.log, project.shadow):
        with disk_errors(log):
            for segment in all_segments(log):
                if segment.index is not None and _index_end(segment, deep=True) is None:
                    segment.index.unlink()
            close_orphans(log)
            for path in _leftovers(log):
                path.unlink(missing_ok=True)


def _check(segment: Segment, *, deep: bool) -> Iterator[Finding]:
    if segment.index is None:
        with suppress(FileNotFoundError):  # closed or removed by its writer meanwhile
            if is_alive(segment):
                return
            with open_windowed(segment.frames, WALK_BYTES) as frames:
                size, spans = len(frames), list(scan_frames(frames))
            whole = spans[-1].end if spans else 0
            yield from _damage(segment, spans, whole)
            if whole < size:
                values = {"path": str(segment.frames), "offset": whole, "size_bytes": size}
                yield Finding("unfinished_frame", values, fixable=True)
        return
    end = _index_end(segment, deep=deep)
    if end is None:
        yield Finding("damaged_log_index", {"path": str(segment.index)}, fixable=True)
    with open_windowed(segment.frames, WALK_BYTES) as frames:
        if deep:
            spans = list(scan_frames(frames))
            if end is None:
                end = spans[-1].end if spans else 0
            yield from _damage(segment, spans, end)
        elif end is not None and end > len(frames):
            yield from _damage(segment, [FrameSpan(0, len(frames), 0, 0)], end)


def _damage(segment: Segment, spans: list[FrameSpan], end: int) -> Iterator[Finding]:
    """Report the stretches up to `end` that belong to no whole frame."""
    starts = [0, *(span.end for span in spans)]
    stops = [*(span.offset for span in spans), end]
    for start, stop in zip(starts, stops, strict=True):
        if start < stop:
            values = {"path": str(segment.frames), "start": start, "end": stop}
            yield Finding("damaged_frames", values)


def _index_end(segment: Segment, *, deep: bool) -> int | None:
    """Return where the index says that the last whole frame ends; None if it is damaged."""
    assert segment.index is not None
    with (
        open_windowed(segment.frames, WALK_BYTES) as frames,
        open_windowed(segment.index) as file,
    ):
        index = read_index(file, len(frames), verify=True)
        if index is None or (deep and not _split(open_entries(b"", frames)) <= _split(index.data)):
            return None
        return index.end


def _split(entries: bytes) -> set[bytes]:
    return {entries[start : start + ENTRY.size] for start in range(0, len(entries), ENTRY.size)}


def _leftovers(log: Path) -> list[Path]:
    """List the files that a writer was about to put in place when it was killed."""
    before = time.time() - YOUNG_S
    return [path for path in sorted(log.rglob("*.tmp")) if path.stat().st_mtime < before]
