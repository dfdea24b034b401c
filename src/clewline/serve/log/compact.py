"""
Closed segments as Parquet, for questions over many predictions.

    log/parquet/hour=2026-11-21T02/STEM.parquet     one file a segment, by the hour of the ids

One row a prediction, sorted by id. The frames stay: a replay reads them, and
`segment` and `offset` of each row say where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clewline.errors import IntegrityError
from clewline.serve.log.closing import close_orphans
from clewline.serve.log.frame import ID_BYTES, LoggedBatch, RoutePath, decode_frame, scan_frames
from clewline.serve.log.reader import request_rows
from clewline.serve.log.segment import HOUR_MS, Segment, hour_folder, hour_of, hours, segments
from clewline.serve.log.windowed_file import WALK_BYTES, open_windowed
from clewline.store.disk import disk_errors, replacing
from clewline.store.ids import id_text

if TYPE_CHECKING:
    import polars as pl

FOLDER = "parquet"


class CompactionResult(msgspec.Struct, frozen=True):
    """What a compaction did."""

    segments: int
    predictions: int
    unreadable: list[str]  # parts whose rows could not be read; their `row` is null


class _Error(msgspec.Struct):
    message: str


class _Answer(msgspec.Struct):
    label: str | int | float | bool | None = None
    value: float | None = None
    error: _Error | None = None
    flags: list[msgspec.Raw] = []


def compact(log: Path) -> CompactionResult:
    """
    Write the Parquet of every closed segment that has none yet.

    Safe beside a running server and beside another compaction. Memory is
    bounded by one segment.

    Raises:
        StoreFull: The disk is full; the files written so far are whole.
    """
    with disk_errors(log):
        close_orphans(log)
        done = [_compact(log, segment) for segment in _due(log)]
    return CompactionResult(
        segments=len(done),
        predictions=sum(one.predictions for one in done),
        unreadable=[what for one in done for what in one.unreadable],
    )


def parquet_files(log: Path) -> list[Path]:
    """List the Parquet files, oldest hour first; `polars.scan_parquet` reads them together."""
    return sorted((log / FOLDER).glob("hour=*/*.parquet"))


def _due(log: Path) -> Iterator[Segment]:
    for hour in reversed(hours(log)):
        for segment in segments(log, hour):
            if segment.index is not None and segment.last_ms and not _target(log, segment).exists():
                yield segment


def _target(log: Path, segment: Segment, hour: int | None = None) -> Path:
    """The file of an hour; that of a segment's first hour is written last, and stands for all."""
    name = hour_folder(log, segment.first_ms // HOUR_MS if hour is None else hour).name
    return log / FOLDER / f"hour={name}" / f"{segment.frames.stem}.parquet"


def _compact(log: Path, segment: Segment) -> CompactionResult:
    unreadable: list[str] = []
    of_hour: dict[int, list[tuple[Any, ...]]] = {}
    for identifier, row in _rows(segment, unreadable):
        of_hour.setdefault(hour_of(identifier), []).append(row)
    for hour in sorted(of_hour, reverse=True):
        _write(_table(of_hour[hour]), _target(log, segment, hour))
    return CompactionResult(1, sum(map(len, of_hour.values())), unreadable)


def _rows(segment: Segment, unreadable: list[str]) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
    with open_windowed(segment.frames, WALK_BYTES) as data:
        for slot in scan_frames(data):
            frame = decode_frame(data, slot)
            where = (segment.frames.name, slot.offset)
            yield from _rows_of(frame, where, unreadable)


def _rows_of(
    frame: LoggedBatch, where: tuple[str, int], unreadable: list[str]
) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
    inputs, entities = _inputs(frame, where, unreadable)
    size = len(frame.answers)
    for row, answer in enumerate(frame.answers):
        identifier = frame.ids[row * ID_BYTES : (row + 1) * ID_BYTES]
        read = msgspec.json.decode(answer, type=_Answer)
        said = (
            _text(read.label),
            read.value,
            read.error and read.error.message,
            len(read.flags),
            inputs[row],
            answer.decode(),
            entities[row],
        )
        way = frame.way(row)
        made = (frame.endpoint, frame.revision, way.model, frame.package_of(row), *_arm(way))
        when = int(frame.time * 1e6)
        yield identifier, (id_text(identifier), when, *made, *said, size, row, *where)


def _arm(way: RoutePath) -> tuple[str | None, float | None]:
    """The arm, and how likely it was: the product over nested routes; null without a route."""
    if not way.choices:
        return None, None
    return way.arm, math.prod(choice.propensity for choice in way.choices)


def _inputs(
    frame: LoggedBatch, where: tuple[str, int], unreadable: list[str]
) -> tuple[list[str | None], list[str | None]]:
    inputs: list[str | None] = []
    entities: list[str | None] = []
    for part in frame.parts:
        entities += part.entities or [None] * part.count
        try:
            inputs += [bytes(row).decode() for row in request_rows(part)]
        except (IntegrityError, msgspec.DecodeError, UnicodeDecodeError) as error:
            unreadable.append(f"{where[0]} at byte {where[1]}: {error}")
            inputs += [None] * part.count
    return inputs, entities


def _text(label: str | int | float | bool | None) -> str | None:
    return label if label is None or isinstance(label, str) else msgspec.json.encode(label).decode()


def _table(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    import polars as pl

    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "id": pl.String,
        "time": pl.Datetime("us", "UTC"),
        "endpoint": pl.String,
        "revision": pl.Int64,
        "model": pl.String,
        "package": pl.String,
        "arm": pl.String,
        "propensity": pl.Float64,
        "label": pl.String,
        "value": pl.Float64,
        "error": pl.String,
        "flags": pl.Int64,
        "row": pl.String,  # JSON, as it came
        "answer": pl.String,  # JSON, as it was sent
        "entity": pl.String,
        "batch_rows": pl.Int64,
        "batch_row": pl.Int64,
        "segment": pl.String,
        "offset": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row").sort("id")


def _write(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        table.write_parquet(aside)
