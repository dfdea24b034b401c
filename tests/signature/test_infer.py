"""What a signature says of a training table."""

import datetime as dt
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from clewline.errors import InvalidInput
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output
from clewline.signature.infer import infer_signature, widened

COLUMNS: dict[str, list[Any]] = {
    "age": [17, 90, 40, 41],
    "hours": [1.5, None, 40.0, 41.5],
    "job": ["smith", None, "nurse", "nurse"],
    "member": [True, False, True, False],
    "since": [dt.datetime(2020, 1, day) for day in (1, 2, 3, 21)],
    "y": ["no", "yes", "no", "yes"],
}


def fields(table: Any, target: str = "y") -> dict[str, Field]:
    return {field.name: field for field in infer_signature(table, target=target).fields}


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, pa.table])
def test_kinds_bounds_levels_and_nullability_are_found_in_any_make_of_table(make: Any) -> None:
    signature = infer_signature(make(COLUMNS), target="y")
    day = 24 * 3600 * 1e6
    first = 18262 * day
    assert signature.fields == (
        Field(name="age", kind="integer", bounds=(13.0, 94.0)),
        Field(name="hours", kind="number", nullable=True, bounds=(0.0, 43.5)),
        Field(name="job", kind="category", nullable=True, levels=("nurse", "smith")),
        Field(name="member", kind="boolean"),
        Field(name="since", kind="datetime", bounds=(first - day, first + 21 * day)),
    )
    assert signature.output == Output(name="y", task="binary", labels=("no", "yes"))


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, pa.table])
def test_the_table_that_it_was_inferred_from_passes_without_a_flag(make: Any) -> None:
    table = make(COLUMNS)
    features = nw.from_native(table, eager_only=True).drop("y").to_native()
    checked = Checker(infer_signature(table, target="y")).table(features)
    assert checked.flags == []
    assert checked.columns.numbers[:, 0].tolist() == [17, 90, 40, 41]
    assert checked.columns.texts.tolist() == [["smith"], [None], ["nurse"], ["nurse"]]


def test_bounds_are_widened_but_not_across_zero() -> None:
    assert widened(17, 90, whole=True) == (13.0, 94.0)
    assert widened(0, 100) == (0.0, 105.0)
    assert widened(-10, 0) == (-10.5, 0.0)
    assert widened(-1, 1) == (-1.1, 1.1)
    assert widened(20, 20) == (19.0, 21.0)
    assert widened(0, 0) == (0.0, 0.0)


def test_nan_is_null_and_floats_that_hold_whole_numbers_stay_numbers() -> None:
    table = pl.DataFrame({"x": [1.0, float("nan"), 3.0], "y": ["a", "b", "a"]})
    assert fields(table)["x"] == Field(name="x", kind="number", nullable=True, bounds=(0.9, 3.1))


def test_texts_of_many_values_are_text_and_declared_categories_stay_categories() -> None:
    names = [f"name {i}" for i in range(300)]
    table = pl.DataFrame({"free": names, "listed": names, "y": [0, 1] * 150}).with_columns(
        pl.col("listed").cast(pl.Categorical)
    )
    found = fields(table)
    assert (found["free"].kind, found["free"].levels) == ("text", None)
    assert (found["listed"].kind, len(found["listed"].levels or ())) == ("category", 300)


@pytest.mark.parametrize("kind", [pl.Array(pl.Float32, 2), pl.List(pl.Float32)])
def test_columns_of_arrays_are_tensors(kind: Any) -> None:
    table = pl.DataFrame({"v": pl.Series([[1, 2], [3, 4]], dtype=kind), "y": ["a", "b"]})
    assert fields(table)["v"] == Field(name="v", kind="tensor", dtype="float32", shape=(2,))
    checked = Checker(infer_signature(table, target="y")).table(table.drop("y"))
    assert checked.columns.tensors["v"].tolist() == [[1, 2], [3, 4]]
    assert checked.columns.tensors["v"].dtype == np.float32


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ([0, 1, 0], ("binary", (0, 1))),
        (["b", "a", "c"], ("multiclass", ("a", "b", "c"))),
        ([True, False, True], ("binary", (False, True))),
        ([0.5, 1.5, 2.5], ("regression", None)),
        (list(range(3)), ("multiclass", (0, 1, 2))),
    ],
)
def test_the_task_follows_from_the_target(target: list[Any], expected: Any) -> None:
    output = infer_signature(pl.DataFrame({"x": [1, 2, 3], "y": target}), target="y").output
    assert (output.task, output.labels) == expected


def test_integers_of_many_values_are_a_quantity_unless_the_task_says_otherwise() -> None:
    table = pl.DataFrame({"x": range(30), "y": range(30)})
    assert infer_signature(table, target="y").output == Output(
        name="y", task="regression", bounds=(0, 29)
    )
    assert len(infer_signature(table, target="y", task="multiclass").output.labels or ()) == 30


def test_labels_come_in_the_order_of_the_model() -> None:
    table = pl.DataFrame({"x": [1, 2], "y": ["a", "b"]})
    assert infer_signature(table, target="y", labels=["b", "a"]).output.labels == ("b", "a")
    labels = infer_signature(table, target="y", labels=np.array([True, False])).output.labels or ()
    assert [type(label) for label in labels] == [bool, bool]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pl.DataFrame({"x": [1], "z": [1]}), "no column 'y'"),
        (pl.DataFrame({"x": [1], "Y": ["a"]}), "did you mean 'Y'|no column 'y'"),
        (pl.DataFrame({"x": [], "y": []}), "no rows"),
        (pl.DataFrame({"y": ["a", "b"]}), "no column besides"),
        (pl.DataFrame({"x": [1, 2], "y": ["a", None]}), "missing in 1 of 2 rows"),
        (pl.DataFrame({"x": [1, 2], "y": ["a", "a"]}), "has the label 'a'"),
        (pl.DataFrame({"x": [None, None], "y": ["a", "b"]}), "'x' is null"),
        (pl.DataFrame({"x": [1.0, float("inf")], "y": ["a", "b"]}), "'x' holds infinity"),
        (pl.DataFrame({"x": [dt.timedelta(1)] * 2, "y": ["a", "b"]}), "'x'.*timedelta"),
        (pl.DataFrame({"x": [{"a": 1}] * 2, "y": ["a", "b"]}), "'x'.*dict"),
        (pl.DataFrame({"x": [[1], [1, 2]], "y": ["a", "b"]}), "differ in shape"),
        (pd.DataFrame({0: [1, 2], "y": ["a", "b"]}), "column 0 is not a string"),
        (pd.DataFrame([[1, 2, "a"]], columns=["x", "x", "y"]), "Two columns"),
        (pd.DataFrame({"x": pd.Series([1, "a"], dtype=object), "y": ["a", "b"]}), "'x'.*holds 1"),
        (pl.DataFrame({"x": [1], "y": [1]}).lazy(), "LazyFrame is not a table"),
        ([1, 2], "list is not a table"),
    ],
)
def test_a_column_that_cannot_be_inferred_is_named(table: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        infer_signature(table, target="y")
