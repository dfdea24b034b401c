"""Closed segments are written once as Parquet, with all that the frames have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl

from clewline.serve.log.compact import compact, parquet_files
from clewline.serve.log.frame import LoggedBatch, LoggedRequest
from clewline.serve.log.reader import get_prediction, read_batch
from clewline.serve.log.segment import HOUR_MS
from clewline.serve.log.writer import LogWriter
from clewline.store.ids import id_text

MakeFrame = Callable[..., LoggedBatch]


def log_of(folder: Path, *frames: LoggedBatch) -> None:
    with LogWriter(folder) as log:
        for frame in frames:
            assert log.write_now(frame)


def test_every_prediction_has_one_row_sorted_by_id(tmp_path: Path, frame: MakeFrame) -> None:
    frames = [frame(3) for _ in range(20)]
    log_of(tmp_path, *reversed(frames))
    done = compact(tmp_path)
    assert (done.segments, done.predictions, done.unreadable) == (1, 60, [])
    table = pl.read_parquet(parquet_files(tmp_path))
    assert table["id"].to_list() == [
        id_text(f.ids[i : i + 16]) for f in frames for i in range(0, 48, 16)
    ]
    assert not table["tried"].any()
    row = table.row(4, named=True)
    logged = get_prediction(tmp_path, row["id"])
    assert (row["row"], row["answer"]) == (bytes(logged.input).decode(), logged.answer.decode())
    assert (row["label"], row["entity"], row["batch_rows"]) == ("<=50K", "c-1", 3)
    place = logged.location._replace(offset=row["offset"])
    assert read_batch(place) == logged.batch


def test_a_second_compaction_finds_nothing_to_do(tmp_path: Path, frame: MakeFrame) -> None:
    log_of(tmp_path, frame(3))
    compact(tmp_path)
    assert compact(tmp_path).segments == 0


def test_an_open_segment_is_not_compacted(tmp_path: Path, frame: MakeFrame) -> None:
    with LogWriter(tmp_path) as log:
        log.write_now(frame())
        assert compact(tmp_path).segments == 0
    assert compact(tmp_path).segments == 1


def test_a_batch_across_two_hours_is_split_by_the_hour_of_the_ids(
    tmp_path: Path, frame: MakeFrame
) -> None:
    ids = [(490_000 * HOUR_MS + step).to_bytes(6, "big") + os.urandom(10) for step in (-1, 0)]
    log_of(tmp_path, frame(2, ids=b"".join(ids)))
    assert compact(tmp_path).predictions == 2
    assert [
        pl.read_parquet(path, hive_partitioning=False).height for path in parquet_files(tmp_path)
    ] == [
        1,
        1,
    ]
    assert compact(tmp_path).segments == 0


def test_answers_of_arrays_and_failed_ones_are_in_the_file(
    tmp_path: Path, frame: MakeFrame
) -> None:
    answers = [b'{"value":[[1.5,null],[2,3]]}', b'{"value":0.1}', b'{"error":{"message":"no"}}']
    log_of(tmp_path, msgspec.structs.replace(frame(3), answers=answers))
    assert compact(tmp_path).predictions == 3
    table = pl.read_parquet(parquet_files(tmp_path))
    assert table["value"].to_list() == [None, 0.1, None]
    assert table["answer"].to_list() == [answer.decode() for answer in answers]
    assert table["error"].to_list() == [None, None, "no"]


def test_rows_that_cannot_be_read_are_reported_and_keep_their_answer(
    tmp_path: Path, frame: MakeFrame
) -> None:
    log_of(tmp_path, frame(1, parts=[LoggedRequest("of the future", b"?", 1)]))
    done = compact(tmp_path)
    assert len(done.unreadable) == 1
    assert "of the future" in done.unreadable[0]
    row = pl.read_parquet(parquet_files(tmp_path)).row(0, named=True)
    assert row["row"] is None
    assert msgspec.json.decode(row["answer"])["label"] == "<=50K"
