"""Rows and tables become the same request, whatever library holds them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest

from clewline.client.request_body import ARROW, encode_rows, rows_of
from clewline.errors import UsageError

MOMENT = dt.datetime(2024, 5, 1, 12, 0, 0, 250)
ROWS = [
    {"n": 1, "x": 0.5, "t": "ä", "b": True, "w": "2024-05-01T12:00:00.000250Z", "v": [1.0, 2.0]},
    {"n": 2, "x": None, "t": None, "b": False, "w": None, "v": [3.0, 4.0]},
]
COLUMNS: dict[str, list[Any]] = {
    "n": [1, 2],
    "x": [0.5, None],
    "t": ["ä", None],
    "b": [True, False],
    "w": [MOMENT, None],
    "v": [[1.0, 2.0], [3.0, 4.0]],
}


def tables() -> dict[str, Any]:
    frame = pl.DataFrame(COLUMNS)
    return {
        "polars": frame,
        "lazy": frame.lazy(),
        "pandas": pd.DataFrame(COLUMNS),
        "arrow": frame.to_arrow(),
    }


@pytest.mark.parametrize("library", ["polars", "lazy", "pandas", "arrow"])
def test_a_table_becomes_its_rows(library):
    assert rows_of(tables()[library]) == ROWS


def test_values_of_numpy_and_times_become_plain():
    row = {
        "i": np.int64(1),
        "f": np.float64("nan"),
        "b": np.bool_(True),
        "v": np.array([[1, 2]]),
        "d": dt.date(2024, 5, 1),
        "z": MOMENT.replace(tzinfo=dt.UTC),
        "na": pd.NA,
        "nat": pd.NaT,
    }
    assert rows_of(row) == [
        {
            "i": 1, "f": None, "b": True, "v": [[1, 2]], "d": "2024-05-01T00:00:00Z",
            "z": "2024-05-01T12:00:00.000250+00:00", "na": None, "nat": None,
        }
    ]  # fmt: skip


def test_a_time_without_offset_in_a_row_is_left_for_the_server_to_refuse():
    assert rows_of([{"w": MOMENT}]) == [{"w": "2024-05-01T12:00:00.000250"}]


def test_what_json_cannot_say_is_left_for_the_server_to_refuse():
    assert b"Infinity" in encode_rows({"x": float("inf"), "t": "\ud800"}, ["c"]).data
    assert json.loads(encode_rows([{"t": "ä"}], None).data) == {"rows": [{"t": "ä"}]}
    assert msgspec.json.decode(encode_rows([], ["c"]).data)["entities"] == ["c"]


@pytest.mark.parametrize("library", ["polars", "lazy", "arrow"])
def test_a_table_that_can_be_written_as_arrow_is_sent_so_with_its_entities(library):
    table = tables()[library]
    body = encode_rows(table, ["c-1", "c-2"])
    assert (body.content_type, body.entities) == (ARROW, "entity")
    sent = pl.read_ipc_stream(body.data)
    assert sent.columns == [*COLUMNS, "entity"]
    assert sent["entity"].to_list() == ["c-1", "c-2"]
    assert encode_rows(table, None).entities is None
    taken = encode_rows(pl.DataFrame({"entity": [1]}), ["c"])
    assert taken.entities == "entity_"


def test_a_batch_of_arrow_is_sent_as_a_table():
    body = encode_rows(pl.DataFrame(COLUMNS).to_arrow().to_batches()[0], ["a", "b"])
    assert pl.read_ipc_stream(body.data)["entity"].to_list() == ["a", "b"]


def test_a_table_of_pandas_is_sent_as_columns():
    body = json.loads(encode_rows(tables()["pandas"], ["c-1", "c-2"]).data)
    assert body == {
        "columns": {name: [row[name] for row in ROWS] for name in COLUMNS},
        "entities": ["c-1", "c-2"],
    }
    with pytest.raises(UsageError, match="twice"):
        encode_rows(pd.DataFrame([[1, 2]], columns=["a", "a"]), None)


@pytest.mark.parametrize("library", ["polars", "pandas", "arrow"])
def test_a_table_needs_one_entity_a_row(library):
    with pytest.raises(UsageError, match="1 entities and 2 rows"):
        encode_rows(tables()[library], ["c"])


@pytest.mark.parametrize("data", [3, "text", b"bytes", [3], None, {"a": {1, 2}}, ["ab"]])
def test_what_is_no_row_is_refused(data):
    with pytest.raises(UsageError):
        rows_of(data)
