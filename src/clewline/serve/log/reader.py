"""
Reading the prediction log: one prediction among millions, pages of the latest.

Only the standard library, msgspec and our own readers are imported here, so
that `clewline why ID` starts quickly. Reads beside writers, and on a read-only
disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec

from clewline.errors import IntegrityError, NotFound
from clewline.serve.log.frame import (
    ID_BYTES,
    ByteSource,
    LoggedBatch,
    LoggedRequest,
    RoutePath,
    decode_frame,
    find_frame,
)
from clewline.serve.log.segment import (
    ENTRY,
    HOUR_MS,
    IndexEntry,
    Segment,
    find_open,
    hour_of,
    hours,
    index_marks,
    key_tail,
    open_marks,
    segments,
)
from clewline.serve.log.windowed_file import BISECT_BYTES, LOOK_UP_BYTES, WALK_BYTES, open_windowed
from clewline.store.ids import id_bytes, id_text

TRIES = 5
"""Looks at a folder whose files a writer renames meanwhile, before we give up."""


MARKS_READ = 200


class LogLocation(NamedTuple):
    """Where a mark leads: a frame of a segment, and the row or part in it."""

    segment: Path
    offset: int
    position: int


class LoggedPrediction(NamedTuple):
    """A prediction as it was logged: its frame, and its row in the batch."""

    id: str
    frame: LoggedBatch
    row: int
    place: LogLocation

    @property
    def answer(self) -> bytes:
        """The answer as it was sent, JSON."""
        return self.frame.answers[self.row]

    @property
    def way(self) -> RoutePath:
        """How the row was answered: model, nodes with their times, arm and propensities."""
        return self.frame.way(self.row)

    @property
    def package(self) -> str:
        """The digest of the package that answered; of several, joined by `+` as the models are."""
        return self.frame.package_of(self.row)

    @property
    def part(self) -> tuple[int, int]:
        """The index of its part, and its row in that part."""
        row = self.row
        for index, part in enumerate(self.frame.parts):
            if row < part.count:
                return index, row
            row -= part.count
        raise IntegrityError(f"The frame of {self.id} has no part for its row {self.row}.")

    @property
    def entity(self) -> str | None:
        """Whom or what the row is about, when the caller said so."""
        index, row = self.part
        entities = self.frame.parts[index].entities
        return entities[row] if entities else None

    @property
    def input(self) -> msgspec.Raw:
        """The row as it came, JSON."""
        index, row = self.part
        return request_rows(self.frame.parts[index])[row]


class PredictionPage(NamedTuple):
    """Some predictions, newest first, and the id to continue `before`; None at the end."""

    items: list[LoggedPrediction]
    next: str | None


def find_prediction(log: Path, identifier: str | bytes) -> LoggedPrediction | None:
    """
    Find a prediction by its id; None when it is not in the log.

    Raises:
        NotFound: The text is no prediction id.
        IntegrityError: It was logged, and its frame is damaged.
    """
    raw = id_bytes(identifier) if isinstance(identifier, str) else identifier
    for last in range(TRIES - 1, -1, -1):
        try:
            return _find(log, raw)
        except FileNotFoundError:
            if not last:
                raise
    return None


def get_prediction(log: Path, identifier: str) -> LoggedPrediction:
    """
    Find a prediction by its id.

    Raises:
        NotFound: It is not in the log.
        IntegrityError: It was logged, and its frame is damaged.
    """
    found = find_prediction(log, identifier)
    if found is None:
        raise NotFound(
            f"No prediction {identifier} is in the log.",
            "`clewline predictions list` shows the latest.",
        )
    return found


def latest_predictions(
    log: Path,
    *,
    limit: int = 50,
    before: str | None = None,
    endpoint: str | None = None,
    look_at: int = 20_000,
) -> PredictionPage:
    """
    Read a page of predictions, newest first.

    Args:
        log: The folder of the log.
        limit: How many at most.
        before: Only those older than this id: the `next` of the page before.
        endpoint: Only those of this endpoint.
        look_at: Predictions to look at before an unfinished page is returned, so
            that an endpoint with few predictions costs no walk over all others.
    """
    bound = id_bytes(before) if before else b"\xff" * 16
    for last in range(TRIES - 1, -1, -1):
        try:
            return _page(log, bound, limit, endpoint, look_at)
        except FileNotFoundError:
            if not last:
                raise
    return PredictionPage([], None)


def read_batch(place: LogLocation) -> LoggedBatch:
    """
    Read the frame that a place leads to.

    Raises:
        IntegrityError: It is damaged.
    """
    with open_windowed(place.segment) as frames:
        slot = find_frame(frames, place.offset)
        if slot is None:
            raise _damaged(place.segment, place.offset)
        return decode_frame(frames, slot)


def logged_keys(log: Path, since_s: float) -> dict[bytes, LogLocation]:
    """
    Read where the requests with an idempotency key are.

    Args:
        log: The folder of the log.
        since_s: Leave out the hours before this time, in seconds since the epoch.

    Returns:
        By `key_hash` of endpoint and key; `position` is the part in the frame.
        The first of two with one key.
    """
    found: dict[bytes, LogLocation] = {}
    oldest = int(since_s * 1000) // HOUR_MS
    for hour in sorted(hour for hour in hours(log) if hour >= oldest - 1):
        for segment in segments(log, hour):
            for mark in _key_marks(segment):
                found.setdefault(mark.id, LogLocation(segment.frames, mark.offset, mark.position))
    return found


def request_rows(part: LoggedRequest) -> list[msgspec.Raw]:
    """
    Read the rows of a part as they came, JSON each.

    Raises:
        IntegrityError: Its format is not known, or the rows are not as many as it says.
    """
    rows = _rows(part)
    if len(rows) != part.count:
        raise IntegrityError(
            f"A part of the prediction log says {part.count} rows and holds {len(rows)}."
        )
    return rows


class _Envelope(msgspec.Struct):
    rows: msgspec.Raw = msgspec.Raw(b"")


def _rows(part: LoggedRequest) -> list[msgspec.Raw]:
    if part.format == "json-rows":
        return msgspec.json.decode(part.body, type=list[msgspec.Raw])
    if part.format != "json":
        return _rows_in_format(part)
    rows = bytes(msgspec.json.decode(part.body, type=_Envelope).rows)
    # A bare row's `rows` is the value of a field, which may be an array, but not of objects.
    if not rows.startswith(b"[") or not rows[1:].lstrip(b" \t\r\n").startswith(b"{"):
        return [msgspec.Raw(part.body)]
    return msgspec.json.decode(rows, type=list[msgspec.Raw])


def _rows_in_format(part: LoggedRequest) -> list[msgspec.Raw]:
    from clewline.serve import formats  # numpy and more, which few parts need

    format = formats.load_format(part.format)
    return [msgspec.Raw(row) for row in format.rows_as_json(part.body, part.detail)]


def _find(log: Path, identifier: bytes) -> LoggedPrediction | None:
    near = _near(log, identifier)
    # An index is held against its checksum only when nothing was found: 2 ms a segment.
    for verify in (False, True):
        for segment in near:
            if found := _look(segment, identifier, verify=verify):
                return found
    return None


def _near(log: Path, identifier: bytes) -> list[Segment]:
    ms, hour = int.from_bytes(identifier[:6], "big"), hour_of(identifier)
    return [
        segment
        for near in (hour, hour + 1, hour - 1)
        for segment in segments(log, near)
        if segment.first_ms <= ms <= segment.last_ms
    ]


def _look(segment: Segment, identifier: bytes, *, verify: bool) -> LoggedPrediction | None:
    ids = _bytes(segment.ids)  # before the frames, so that it names none that we do not see
    with open_windowed(segment.frames) as frames:
        mark = _mark(segment, ids, frames, identifier, verify=verify)
        if mark is None:
            return None
        slot = find_frame(frames, mark.offset)
        if slot is None:
            if not verify:
                return None  # index or frame is damaged: the second look tells which
            raise _damaged(segment.frames, mark.offset, id_text(identifier))
        frame = decode_frame(frames, slot)
    start = mark.position * ID_BYTES
    if frame.ids[start : start + ID_BYTES] != identifier:
        return None
    place = LogLocation(segment.frames, mark.offset, mark.position)
    return LoggedPrediction(id_text(identifier), frame, mark.position, place)


def _mark(
    segment: Segment, ids: bytes, frames: ByteSource, identifier: bytes, *, verify: bool
) -> IndexEntry | None:
    if segment.index is not None:
        with open_windowed(segment.index, BISECT_BYTES) as index:
            marks = index_marks(index, len(frames), verify=verify)
            if marks is not None:
                return marks.find(identifier)
    return find_open(ids, frames, identifier)


def _page(
    log: Path, bound: bytes, limit: int, endpoint: str | None, look_at: int
) -> PredictionPage:
    items: list[LoggedPrediction] = []
    frames: dict[tuple[Path, int], LoggedBatch] = {}
    for looked, (mark, segment) in enumerate(_newest_first(log, bound), 1):
        place = LogLocation(segment.frames, mark.offset, mark.position)
        frame = frames.get(place[:2])
        if frame is None:
            frames = {place[:2]: read_batch(place), **dict(list(frames.items())[:16])}
            frame = frames[place[:2]]
        if endpoint is None or frame.endpoint == endpoint:
            items.append(LoggedPrediction(id_text(mark.id), frame, mark.position, place))
        if len(items) == limit or looked == look_at:
            return PredictionPage(items, id_text(mark.id))
    return PredictionPage(items, None)


class _Cursor(NamedTuple):
    """A segment in the merge: `key` sorts by its next mark, or by the latest that it may hold."""

    key: int
    order: int
    segment: Segment
    mark: IndexEntry | None  # None: it was not opened yet
    rest: Iterator[IndexEntry]


def _newest_first(log: Path, bound: bytes) -> Iterator[tuple[IndexEntry, Segment]]:
    """Merge the segments, opening each only when its turn comes."""
    waiting = [hour for hour in hours(log) if hour <= hour_of(bound) + 1][::-1]
    cursors: list[_Cursor] = []
    order = count()
    while cursors or waiting:
        # The folder of an hour may hold ids of the hour after it.
        while waiting and (not cursors or _hour(cursors[0]) <= waiting[-1] + 1):
            for segment in segments(log, waiting.pop()):
                latest_ms = -((segment.last_ms + 1) << 80)
                marks = _descending(segment, bound)
                heappush(cursors, _Cursor(latest_ms, next(order), segment, None, marks))
        if not cursors:
            return
        cursor = heappop(cursors)
        if cursor.mark is not None:
            yield cursor.mark, cursor.segment
        mark = next(cursor.rest, None)
        if mark is not None:
            key = -int.from_bytes(mark.id, "big")
            heappush(cursors, cursor._replace(key=key, order=next(order), mark=mark))


def _hour(cursor: _Cursor) -> int:
    return (-cursor.key >> 80) // HOUR_MS


def _descending(segment: Segment, bound: bytes) -> Iterator[IndexEntry]:
    """The marks before an id, latest first. Holds no file open between them."""
    if segment.first_ms > int.from_bytes(bound[:6], "big"):
        return
    marks = _marks_before(segment, bound)
    if marks is None:
        ids = _bytes(segment.ids)
        with open_windowed(segment.frames, WALK_BYTES) as frames:
            found = open_marks(ids, frames)
        pieces = (found[start : start + ENTRY.size] for start in range(0, len(found), ENTRY.size))
        for piece in sorted((piece for piece in pieces if piece[:ID_BYTES] < bound), reverse=True):
            yield IndexEntry(*ENTRY.unpack(piece))
    while marks:
        yield from marks
        marks = _marks_before(segment, marks[-1].id)


def _marks_before(segment: Segment, bound: bytes) -> list[IndexEntry] | None:
    """The latest marks before an id, by the index; None when no index can be trusted."""
    if segment.index is None:
        return None
    with open_windowed(segment.index, LOOK_UP_BYTES) as index:
        marks = index_marks(index, segment.frames.stat().st_size)
        if marks is None:
            return None
        last = marks.position(bound)
        return [marks[place] for place in range(last - 1, max(-1, last - 1 - MARKS_READ), -1)]


def _key_marks(segment: Segment) -> list[IndexEntry]:
    known = _bytes(segment.keys)
    marks = [
        IndexEntry(*mark)
        for mark in ENTRY.iter_unpack(known[: len(known) - len(known) % ENTRY.size])
    ]
    if segment.index is None:
        ids = _bytes(segment.ids)
        with open_windowed(segment.frames) as frames:
            tail = key_tail(ids, frames)
        marks.extend(mark for mark in tail if mark not in set(marks))
    return marks


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""  # nothing was marked yet, or it was closed meanwhile: the frames tell


def _damaged(segment: Path, offset: int, identifier: str | None = None) -> IntegrityError:
    what = f"Prediction {identifier} was logged, but its frame" if identifier else "The frame"
    return IntegrityError(
        f"{what} at byte {offset} of {segment} does not match its checksum.",
        "The disk changed it: restore that file from a backup. `clewline doctor` finds the others.",
    )
