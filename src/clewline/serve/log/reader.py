"""
Reading the prediction log: one prediction among millions, pages of the latest.

Only the standard library, msgspec and our own readers are imported here, so
that `clewline why ID` starts quickly. It reads beside writers, and on a read-only
disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from clewline.errors import IntegrityError, NotFound
from clewline.serve.log.frame import (
    ID_BYTES,
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
    open_entries,
    read_if_there,
    read_keys,
    segments,
)
from clewline.serve.log.segment_index import read_index
from clewline.serve.log.windowed_file import (
    BISECT_BYTES,
    LOOK_UP_BYTES,
    WALK_BYTES,
    open_windowed,
)
from clewline.store.disk import disk_errors
from clewline.store.ids import id_bytes, id_text

ATTEMPTS = 5
"""Number of looks at a folder in which a writer renames files meanwhile."""
ENTRIES_READ = 200
"""Entries of an index that are read at once for a page."""
FRAMES_KEPT = 16
"""Frames that are kept decoded while a page is read."""

T = TypeVar("T")


class LogLocation(NamedTuple):
    """A frame of a segment, and the row or request in it."""

    segment: Path
    offset: int
    position: int


class LoggedPrediction(NamedTuple):
    """A prediction as it was logged: its batch, and its row in the batch."""

    id: str
    batch: LoggedBatch
    row: int
    location: LogLocation

    @property
    def answer(self) -> bytes:
        """The answer as it was sent, JSON."""
        return self.batch.answers[self.row]

    @property
    def route_path(self) -> RoutePath:
        """The path of the row: model, nodes with their times, arm and propensities."""
        return self.batch.route_path(self.row)

    @property
    def package(self) -> str:
        """The digest of the package that answered; of several, joined by `+` as the models are."""
        return self.batch.package_of(self.row)

    @property
    def request(self) -> tuple[int, int]:
        """The index of its request in the batch, and its row in that request."""
        row = self.row
        for index, request in enumerate(self.batch.requests):
            if row < request.count:
                return index, row
            row -= request.count
        raise IntegrityError(f"The frame of {self.id} has no request for its row {self.row}.")

    @property
    def entity(self) -> str | None:
        """The entity that the row is about, if the caller named one."""
        index, row = self.request
        entities = self.batch.requests[index].entities
        return entities[row] if entities else None

    @property
    def tried(self) -> bool:
        """Whether the row was made up to see the answer."""
        return self.batch.requests[self.request[0]].tried

    @property
    def request_format(self) -> str:
        """The format of the request that it came with, such as `json` or `csv`."""
        return self.batch.requests[self.request[0]].format

    @property
    def input(self) -> msgspec.Raw:
        """The row as it came, JSON; of CSV, every value is a string."""
        index, row = self.request
        return request_rows(self.batch.requests[index])[row]


class PredictionPage(NamedTuple):
    """Some predictions, newest first, and the id to continue `before`; None at the end."""

    items: list[LoggedPrediction]
    next: str | None


def find_prediction(log: Path, identifier: str | bytes) -> LoggedPrediction | None:
    """
    Find a prediction by its id; None if it is not in the log.

    Raises:
        NotFound: The string is no prediction id.
        IntegrityError: It was logged, and its frame is damaged.
    """
    raw = id_bytes(identifier) if isinstance(identifier, str) else identifier
    return try_again(log, lambda: _find(log, raw))


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
    tried: bool | None = None,
    look_at: int = 20_000,
) -> PredictionPage:
    """
    Read a page of predictions, newest first.

    Args:
        log: The folder of the log.
        limit: Maximum number of predictions.
        before: Only those older than this id: the `next` of the page before.
        endpoint: Only those of this endpoint.
        tried: Only those that somebody tried out, or only the others; by default both.
        look_at: Predictions to look at before an unfinished page is returned, so
            that an endpoint with few predictions does not make us read all others.
    """
    bound = id_bytes(before) if before else b"\xff" * 16
    return try_again(log, lambda: _page(log, bound, limit, endpoint, tried, look_at))


def read_batch(location: LogLocation) -> LoggedBatch:
    """
    Read the batch at a location.

    Raises:
        IntegrityError: It is damaged.
    """
    with disk_errors(location.segment), open_windowed(location.segment) as frames:
        span = find_frame(frames, location.offset)
        if span is None:
            raise _damaged(location.segment, location.offset)
        return decode_frame(frames, span)


def logged_keys(log: Path, since_s: float) -> dict[bytes, LogLocation]:
    """
    Read where the requests with an idempotency key are.

    Args:
        log: The folder of the log.
        since_s: Leave out the hours before this time, in seconds since the epoch.

    Returns:
        Locations by the `key_hash` of endpoint and key; `position` is the request in the
        batch. The first of two requests with one key.
    """
    found: dict[bytes, LogLocation] = {}
    oldest = int(since_s * 1000) // HOUR_MS
    with disk_errors(log):
        for hour in sorted(hour for hour in hours(log) if hour >= oldest - 1):
            for segment in segments(log, hour):
                if segment.index is not None and not segment.keys.exists():
                    continue
                ids = read_if_there(segment.ids)
                with open_windowed(segment.frames) as frames:
                    keys = read_keys(segment, ids, frames)
                for mark, offset, position in ENTRY.iter_unpack(keys):
                    found.setdefault(mark, LogLocation(segment.frames, offset, position))
    return found


def request_rows(request: LoggedRequest) -> list[msgspec.Raw]:
    """
    Read the rows of a request as they came, JSON each.

    Raises:
        IntegrityError: Its format is not known, or the number of rows is not as recorded.
    """
    rows: list[msgspec.Raw]
    if request.format == "json-rows":
        rows = msgspec.json.decode(request.body, type=list[msgspec.Raw])
    elif request.format != "json":
        from clewline.serve.formats import body_format  # numpy and more, which few requests need

        format = body_format.load_format(request.format)
        rows = list(map(msgspec.Raw, format.rows_as_json(request.body, request.detail)))
    else:
        envelope = bytes(msgspec.json.decode(request.body, type=_Envelope).rows)
        rows = [msgspec.Raw(request.body)]
        # A bare row's `rows` is the value of a field, which may be an array, but not of objects.
        if envelope.startswith(b"[") and envelope[1:].lstrip(b" \t\r\n").startswith(b"{"):
            rows = msgspec.json.decode(envelope, type=list[msgspec.Raw])
    if len(rows) != request.count:
        raise IntegrityError(
            f"A request in the prediction log has {len(rows)} rows, but {request.count} recorded."
        )
    return rows


class _Envelope(msgspec.Struct):
    rows: msgspec.Raw = msgspec.Raw(b"")


def _find(log: Path, identifier: bytes) -> LoggedPrediction | None:
    ms, hour = int.from_bytes(identifier[:6], "big"), hour_of(identifier)
    near = [
        segment
        for each in (hour, hour + 1, hour - 1)
        for segment in segments(log, each)
        if segment.first_ms <= ms <= segment.last_ms
    ]
    # An index is compared with its checksum only if nothing was found: 2 ms a segment.
    for verify in (False, True):
        for segment in near:
            if found := _find_in(segment, identifier, verify=verify):
                return found
    return None


def _find_in(segment: Segment, identifier: bytes, *, verify: bool) -> LoggedPrediction | None:
    ids = read_if_there(segment.ids)  # before the frames, so that it names none that we do not see
    with open_windowed(segment.frames) as frames:
        index = entry = None
        if segment.index is not None:
            with open_windowed(segment.index, BISECT_BYTES) as file:
                index = read_index(file, len(frames), verify=verify)
                entry = None if index is None else index.find(identifier)
        if index is None:
            entry = find_open(ids, frames, identifier)
        if entry is None:
            return None
        span = find_frame(frames, entry.offset)
        if span is None:
            if not verify:
                return None  # index or frame is damaged: the second look decides which
            raise _damaged(segment.frames, entry.offset, id_text(identifier))
        batch = decode_frame(frames, span)
    start = entry.position * ID_BYTES
    if batch.ids[start : start + ID_BYTES] != identifier:
        return None
    return _logged(segment, entry, batch)


def _logged(segment: Segment, entry: IndexEntry, batch: LoggedBatch) -> LoggedPrediction:
    location = LogLocation(segment.frames, entry.offset, entry.position)
    return LoggedPrediction(id_text(entry.id), batch, entry.position, location)


def _page(
    log: Path,
    bound: bytes,
    limit: int,
    endpoint: str | None,
    tried: bool | None,
    look_at: int,
) -> PredictionPage:
    items: list[LoggedPrediction] = []
    batches: dict[tuple[Path, int], LoggedBatch] = {}
    for looked, (entry, segment) in enumerate(newest_first(log, bound), 1):
        place = segment.frames, entry.offset
        if place not in batches:
            if len(batches) > FRAMES_KEPT:
                del batches[next(iter(batches))]
            batches[place] = read_batch(LogLocation(*place, 0))
        found = _logged(segment, entry, batches[place])
        if endpoint in (None, found.batch.endpoint) and (tried is None or found.tried == tried):
            items.append(found)
        if len(items) == limit or looked == look_at:
            return PredictionPage(items, id_text(entry.id))
    return PredictionPage(items, None)


class _Cursor(NamedTuple):
    """A segment in the merge. `key` sorts by its next entry, or by the latest that it may hold."""

    key: int
    order: int
    segment: Segment
    entry: IndexEntry | None  # None: it was not opened yet
    rest: Iterator[IndexEntry]


def newest_first(log: Path, bound: bytes) -> Iterator[tuple[IndexEntry, Segment]]:
    """Yield the entries before an id, the latest first; a segment is opened when its turn comes."""
    waiting = [hour for hour in hours(log) if hour <= hour_of(bound) + 1][::-1]
    cursors: list[_Cursor] = []
    order = count()
    while cursors or waiting:
        # The folder of an hour may hold ids of the hour after it.
        while waiting and (not cursors or (-cursors[0].key >> 80) // HOUR_MS <= waiting[-1] + 1):
            for segment in segments(log, waiting.pop()):
                latest = -((segment.last_ms + 1) << 80)
                entries = _descending(segment, bound)
                heappush(cursors, _Cursor(latest, next(order), segment, None, entries))
        if not cursors:
            return
        cursor = heappop(cursors)
        if cursor.entry is not None:
            yield cursor.entry, cursor.segment
        entry = next(cursor.rest, None)
        if entry is not None:
            key = -int.from_bytes(entry.id, "big")
            heappush(cursors, cursor._replace(key=key, order=next(order), entry=entry))


def _descending(segment: Segment, bound: bytes) -> Iterator[IndexEntry]:
    """Read the entries before an id, latest first. Holds no file open between them."""
    if segment.first_ms > int.from_bytes(bound[:6], "big"):
        return
    entries = _entries_before(segment, bound)
    if entries is None:
        ids = read_if_there(segment.ids)
        with open_windowed(segment.frames, WALK_BYTES) as frames:
            found = open_entries(ids, frames)
        every = (IndexEntry(*entry) for entry in ENTRY.iter_unpack(found))
        yield from sorted((entry for entry in every if entry.id < bound), reverse=True)
    while entries:
        yield from entries
        entries = _entries_before(segment, entries[-1].id)


def _entries_before(segment: Segment, bound: bytes) -> list[IndexEntry] | None:
    """Read the latest entries before an id from the index; None if there is no sound index."""
    if segment.index is None:
        return None
    with open_windowed(segment.index, LOOK_UP_BYTES) as file:
        index = read_index(file, segment.frames.stat().st_size)
        if index is None:
            return None
        last = index.position(bound)
        return [index[place] for place in range(last - 1, max(-1, last - 1 - ENTRIES_READ), -1)]


def try_again(log: Path, look: Callable[[], T]) -> T:
    """Look again if a writer has renamed a file meanwhile; raises what `disk_errors` does."""
    with disk_errors(log):
        for _ in range(ATTEMPTS - 1):
            with suppress(FileNotFoundError):
                return look()
        return look()


def _damaged(segment: Path, offset: int, identifier: str | None = None) -> IntegrityError:
    what = f"Prediction {identifier} was logged, but its frame" if identifier else "The frame"
    return IntegrityError(
        f"{what} at byte {offset} of {segment} does not match its checksum.",
        "The disk changed it: restore that file from a backup. `clewline doctor` finds the others.",
    )
