"""
Closed segments as Parquet, for questions over many predictions.

    log/parquet/hour=2026-11-21T02/STEM.parquet     one file a segment, by the hour of the ids

One row a prediction, sorted by id. The frames stay: a replay reads them, and
`segment` and `offset` of each row say where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from clewline.errors import IntegrityError
from clewline.serve.log.frame import ID_BYTES, LoggedBatch, decode_frame, scan_frames
from clewline.serve.log.reader import request_rows
from clewline.serve.log.segment import HOUR_MS, Segment, all_segments, hour_folder, hour_of
from clewline.serve.log.segment_index import close_orphans
from clewline.serve.log.windowed_file import WALK_BYTES, open_windowed
from clewline.store.digest import Digest, digest_file
from clewline.store.disk import disk_errors, replacing
from clewline.store.ids import id_text

FOLDER = "parquet"


class CompactionResult(msgspec.Struct, frozen=True):
    """The result of a compaction."""

    segments: int
    predictions: int
    unreadable: list[str]  # requests of which the rows could not be read; their `row` is null
    files: list[Path] = []  # the Parquet files that were written


class _Error(msgspec.Struct):
    message: str


class _LoggedAnswer(msgspec.Struct):
    label: str | int | float | bool | None = None
    value: float | list[Any] | None = None
    error: _Error | None = None
    flags: list[msgspec.Raw] = []


def compact(log: Path, sealed: Mapping[Path, Digest] | None = None) -> CompactionResult:
    """
    Write the Parquet file of every closed segment that has none yet.

    Safe beside a running server and beside another compaction. Memory is
    bounded by one segment.

    Args:
        log: The folder of the log.
        sealed: The digests of segments in the signed chain. One that differs is left out.

    Raises:
        StoreFull: The disk is full; the files written so far are whole.
    """
    compacted = predictions = 0
    unreadable: list[str] = []
    files: list[Path] = []
    with disk_errors(log):
        close_orphans(log)
        for segment in all_segments(log):
            # The file of a segment's first hour is written last, and stands for all of them.
            first = _target(log, segment, segment.first_ms // HOUR_MS)
            if segment.index is None or not segment.last_ms or first.exists():
                continue
            wanted = (sealed or {}).get(segment.frames)
            if wanted is not None and digest_file(segment.frames) != wanted:
                unreadable.append(f"{segment.frames.name} was changed since it was sealed")
                continue
            compacted += 1
            predictions += _compact(log, segment, unreadable, files)
    return CompactionResult(compacted, predictions, unreadable, files)


def parquet_files(log: Path) -> list[Path]:
    """List the Parquet files, oldest hour first; `polars.scan_parquet` reads them together."""
    return sorted((log / FOLDER).glob("hour=*/*.parquet"))


def _target(log: Path, segment: Segment, hour: int) -> Path:
    name = hour_folder(log, hour).name
    return log / FOLDER / f"hour={name}" / f"{segment.frames.stem}.parquet"


def _compact(log: Path, segment: Segment, unreadable: list[str], files: list[Path]) -> int:
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
        "tried": pl.Boolean,
    }
    of_hour: dict[int, list[tuple[Any, ...]]] = {}
    with open_windowed(segment.frames, WALK_BYTES) as frames:
        for span in scan_frames(frames):
            where = segment.frames.name, span.offset
            for identifier, row in _batch_rows(decode_frame(frames, span), where, unreadable):
                of_hour.setdefault(hour_of(identifier), []).append(row)
    for hour in sorted(of_hour, reverse=True):
        path = _target(log, segment, hour)
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with replacing(path) as aside:
            aside.touch(0o600)
            table = pl.DataFrame(of_hour[hour], schema=schema, orient="row").sort("id")
            table.write_parquet(aside)
        files.append(path)
    return sum(map(len, of_hour.values()))


def _batch_rows(
    batch: LoggedBatch, where: tuple[str, int], unreadable: list[str]
) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
    inputs: list[str | None] = []
    entities: list[str | None] = []
    tried: list[bool] = []
    for request in batch.requests:
        tried += [request.tried] * request.count
        entities += request.entities or [None] * request.count
        try:
            inputs += [bytes(row).decode() for row in request_rows(request)]
        except (IntegrityError, msgspec.DecodeError, UnicodeDecodeError) as error:
            unreadable.append(f"{where[0]} at byte {where[1]}: {error}")
            inputs += [None] * request.count
    for row, answer in enumerate(batch.answers):
        identifier = batch.ids[row * ID_BYTES : (row + 1) * ID_BYTES]
        read = msgspec.json.decode(answer, type=_LoggedAnswer)
        path, label = batch.route_path(row), read.label
        if label is not None and not isinstance(label, str):
            label = msgspec.json.encode(label).decode()
        yield (
            identifier,
            (
                id_text(identifier),
                int(batch.time * 1e6),
                batch.endpoint,
                batch.revision,
                path.model,
                batch.package_of(row),
                path.arm if path.choices else None,
                # Of nested routes: the probability of all choices together.
                math.prod(c.propensity for c in path.choices) if path.choices else None,
                label,
                None if isinstance(read.value, list) else read.value,  # `answer` has arrays
                read.error and read.error.message,
                len(read.flags),
                inputs[row],
                answer.decode(),
                entities[row],
                len(batch.answers),
                row,
                *where,
                tried[row],
            ),
        )
