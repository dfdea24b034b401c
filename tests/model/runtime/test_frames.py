"""A table taken apart into columns and rebuilt is the table that the estimator was trained on."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest

from clewline.errors import NotSupported
from clewline.model.runtime.frames import ColumnLayout, TableLayout, columns_of, frame_of, layout_of
from clewline.signature.check import Checker
from clewline.signature.infer import infer_signature

DAY = dt.datetime(2020, 1, 2, 3, 4, 5, 600)


def pandas_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": [1.5, None, 3.0, 4.0],
            "integer": [1, 2, 3, 4],
            "nullable integer": pd.array([1, None, 3, 4], dtype="Int64"),
            "boolean": [True, False, True, False],
            "nullable boolean": pd.array([True, None, False, True], dtype="boolean"),
            "text": ["a", None, "None", "nan"],
            "object": pd.Series(["a", None, "b", "a"], dtype=object),
            "category": pd.Categorical(["x", "y", None, "x"]),
            "day": pd.to_datetime([DAY, DAY, None, DAY]),
            "zoned": pd.to_datetime([DAY, DAY, None, DAY]).tz_localize("Europe/Berlin"),
            "single": np.arange(4, dtype=np.float32),
            "y": [0, 1, 0, 1],
        }
    )


def polars_table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "number": [1.5, None, 3.0, 4.0],
            "small": pl.Series([1, None, 3, 4], dtype=pl.Int16),
            "boolean": [True, None, False, True],
            "text": ["a", None, "None", "nan"],
            "enum": pl.Series(["x", "y", None, "x"], dtype=pl.Enum(["y", "x"])),
            "category": pl.Series(["x", "y", None, "x"], dtype=pl.Categorical),
            "day": [DAY, DAY, None, DAY],
            "utc": pl.Series([DAY, DAY, None, DAY]).dt.replace_time_zone("UTC"),
            "zoned": pl.Series([DAY, DAY, None, DAY]).dt.replace_time_zone("Europe/Berlin"),
            "single": pl.Series([0, 1, 2, 3], dtype=pl.Float32),
            "y": [0, 1, 0, 1],
        }
    )


def test_a_pandas_table_comes_back_the_same():
    table = pandas_table()
    signature, fields = infer_signature(table, target="y"), table.drop(columns="y")
    layout = layout_of(fields, signature, "pandas")
    pd.testing.assert_frame_equal(
        frame_of(columns_of(fields, signature), signature, layout), fields
    )


def test_a_polars_table_comes_back_the_same():
    table = polars_table()
    signature, fields = infer_signature(table, target="y"), table.drop("y")
    layout = layout_of(fields, signature, "polars")
    again = frame_of(columns_of(fields, signature), signature, layout)
    assert again.equals(fields, null_equal=True)
    assert again.schema == fields.schema


@pytest.mark.parametrize("table", [pandas_table(), polars_table()], ids=["pandas", "polars"])
def test_columns_are_those_of_the_validator(table):
    """What the compiler holds equal is what the server will send."""
    signature = infer_signature(table, target="y")
    fields = table[[field.name for field in signature.fields]]
    ours, its = columns_of(fields, signature), Checker(signature).table(fields).columns
    np.testing.assert_array_equal(ours.numbers, its.numbers)
    assert ours.texts.tolist() == its.texts.tolist()


def test_a_matrix_has_one_column_a_field_and_null_as_it_was():
    table = pandas_table()[["number", "object", "y"]]
    signature = infer_signature(table, target="y")
    layout = layout_of(table, signature, "numpy")
    matrix = frame_of(columns_of(table, signature), signature, layout)
    assert matrix[:, 1].tolist() == ["a", None, "b", "a"]
    assert matrix.shape == (4, 2)


def test_a_column_type_that_a_request_cannot_give_is_refused():
    table = pl.DataFrame({"text": ["a", "b"], "y": [0, 1]})
    signature = infer_signature(table, target="y")
    layout = TableLayout("polars", {"text": ColumnLayout("Strange")})
    with pytest.raises(NotSupported, match="Strange"):
        frame_of(columns_of(table, signature), signature, layout)
