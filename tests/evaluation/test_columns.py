"""Tables of every kind become the same columns."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from clewline.evaluation.columns import EvaluatedColumn, read_columns, value_groups

VALUES = {
    "number": [1.5, None, 2.5, 1.5],
    "text": ["b", "a", None, "b"],
    "flag": [True, None, False, True],
    "only": [True, None, True, None],
    "day": [dt.datetime(2024, 1, n) for n in (1, 2, 3, 4)],
    "y": [0, 1, 0, 1],
}


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, pa.table])
def test_every_kind_of_table_gives_the_same_columns(make) -> None:
    columns = read_columns(make(VALUES), target="y")
    assert list(columns) == ["number", "text", "flag", "only", "day"]
    assert columns["text"].levels == ("a", "b")
    assert columns["text"].values.tolist() == [1, 0, -1, 1]
    assert columns["flag"].levels == (False, True)
    assert columns["flag"].values.tolist() == [1, -1, 0, 1]
    assert columns["only"].values.tolist() == [0, -1, 0, -1]
    assert columns["day"].is_datetime
    assert columns["day"].values.tolist() == [(19723 + n) * 86_400e6 for n in range(4)]
    assert columns["number"].is_null.tolist() == [False, True, False, False]


def test_categories_enums_and_dates_are_read() -> None:
    table = pl.DataFrame(
        {
            "c": pl.Series(["x", "y", None], dtype=pl.Categorical),
            "e": pl.Series(["x", "y", None], dtype=pl.Enum(["y", "z", "x"])),
            "d": [dt.date(1970, 1, 2), None, dt.date(1970, 1, 1)],
            "z": [
                dt.datetime(1970, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-1))), None, None
            ],
            "n": [None, None, None],
            "l": [[1], [2], [3]],
        }
    )  # fmt: skip
    columns = read_columns(table)
    assert "l" not in columns
    assert columns["c"].cells(np.arange(3)) == ["x", "y", None]
    assert columns["e"].cells(np.arange(3)) == ["x", "y", None]
    assert columns["d"].cells(np.arange(3)) == [86_400e6, None, 0.0]
    assert columns["z"].cells(np.arange(1)) == [3_600e6]
    assert columns["n"].groups() == (pytest.approx([0, 0, 0]), ["null"])


def test_values_that_share_a_text_stay_apart() -> None:
    columns = read_columns(pd.DataFrame({"x": pd.Series(["True", True, None], dtype=object)}))
    assert columns["x"].cells(np.arange(3)) == ["True", True, None]
    assert columns["x"].codes_of([True]) != columns["x"].codes_of(["True"])


def test_only_values_that_occur_are_groups() -> None:
    column = EvaluatedColumn("x", np.array([2, 0, -1]), ("a", "b", "c"))
    codes, names = column.groups()
    assert [names[code] for code in codes] == ["c", "a", "null"]
    few = EvaluatedColumn("n", np.array([3.0, 1.0, np.nan]))
    codes, names = value_groups(few)
    assert [names[code] for code in codes] == ["3", "1", "null"]
