"""Functions get tables whose types come from the signature, and what they give is checked."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import InvalidInput
from clewline.model.runtime import Outputs
from clewline.serve.graph.tables import answers_of, columns_of, outputs_of, table_of
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature

FIELDS = (
    Field(name="size", kind="number", nullable=True),
    Field(name="age", kind="integer", nullable=True),
    Field(name="member", kind="boolean", nullable=True),
    Field(name="job", kind="category", nullable=True),
    Field(name="since", kind="datetime", nullable=True),
    Field(name="shape", kind="tensor", dtype="float64", shape=(2,)),
)
NUMBER = Output(name="y", task="regression")
LABELS = Output(name="y", task="binary", labels=(True, False))
SIGNATURE = Signature(fields=FIELDS, output=NUMBER)
CHECKER = Checker(SIGNATURE)
MOMENT = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def columns(*rows: tuple[Any, ...]) -> Columns:
    """Rows of size, age, member, job, since, shape."""
    numbers = [
        [np.nan if v is None else v for v in (s, a, m, None if t is None else t.timestamp() * 1e6)]
        for s, a, m, _, t, _ in rows
    ]
    texts = np.array([[row[3]] for row in rows], dtype=object)
    return Columns(np.array(numbers), texts, {"shape": np.array([row[5] for row in rows])})


FULL = (1.5, 39, True, "nurse", MOMENT, [1.0, 2.0])
EMPTY = (None, None, None, None, None, [0.0, 0.0])

ROW = st.tuples(
    st.none() | st.floats(-1e6, 1e6),
    st.none() | st.integers(-(10**6), 10**6),
    st.none() | st.booleans(),
    st.none() | st.text(max_size=5),
    st.none() | st.just(MOMENT),
    st.lists(st.floats(-9, 9), min_size=2, max_size=2),
)


@given(st.lists(ROW, min_size=1, max_size=8), st.sampled_from(["polars", "pandas", "rows"]))
def test_a_table_that_is_given_back_is_what_it_was(rows: list[Any], frame: Any) -> None:
    given_ = columns(*rows)
    found = columns_of(table_of(given_, SIGNATURE, frame), CHECKER, len(rows))
    assert np.array_equal(found.numbers, given_.numbers, equal_nan=True)
    assert found.texts.tolist() == given_.texts.tolist()
    assert found.tensors["shape"].tolist() == given_.tensors["shape"].tolist()


def test_the_types_of_the_columns_are_the_same_whatever_stands_in_them() -> None:
    for frame in ("polars", "pandas"):
        full, empty = (table_of(columns(row), SIGNATURE, frame) for row in (FULL, EMPTY))
        assert list(full.dtypes) == list(empty.dtypes)
    assert table_of(columns(FULL), SIGNATURE, "rows") == [
        {"size": 1.5, "age": 39, "member": True, "job": "nurse", "since": MOMENT,
         "shape": [1.0, 2.0]}
    ]  # fmt: skip
    array = table_of(columns(FULL), SIGNATURE, "numpy")
    assert (array.dtype, array[0, 1], array[0, 3]) == (np.dtype(object), 39, "nurse")


def test_numbers_alone_make_a_matrix_that_is_a_copy() -> None:
    signature = Signature(fields=FIELDS[:3], output=NUMBER)
    given_ = Columns(np.array([[1.5, 39, 1.0]]), np.empty((1, 0), dtype=object))
    array = table_of(given_, signature, "numpy")
    array[:] = 0
    assert given_.numbers.tolist() == [[1.5, 39, 1.0]]
    assert columns_of(array, Checker(signature), 1).numbers.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"size": 1.0, "age": 1.5}], "field 'age': 1.5"),
        ([{"size": float("inf"), "age": 1}], "Row 0, field 'size': inf"),
        ([{"size": 1.0}], "field 'age'"),
        ([7], "Row 0 is a int"),
        ([{"size": object(), "age": 1}], "not a value of a field"),
        (pl.DataFrame({"size": ["a"], "age": [1]}), "field 'size': 'a'"),
        (pl.DataFrame({"size": [1.0]}), "the column is missing"),
        (pd.DataFrame({"size": [1.0, 2.0], "age": [1, 2]}), "got 1 rows and gave 2 rows"),
        (np.zeros((1, 3)), r"shape \[1, 3\]"),
        (None, "gave a NoneType"),
        ("x", "not a table"),
    ],
)
def test_what_does_not_fit_is_named(made: Any, message: str) -> None:
    signature = Signature(
        fields=(Field(name="size", kind="number"), Field(name="age", kind="integer")),
        output=NUMBER,
    )
    with pytest.raises(InvalidInput, match=message):
        columns_of(made, Checker(signature), 1)


SURE = Outputs(choices=np.array([0, 1]), probabilities=np.array([[0.75, 0.25], [0.5, 0.5]]))


@pytest.mark.parametrize("frame", ["polars", "pandas", "rows"])
def test_answers_that_are_given_back_are_what_they_were(frame: Any) -> None:
    back = outputs_of(answers_of(SURE, LABELS, frame), LABELS, 2)
    assert back.choices is not None
    assert back.probabilities is not None
    assert back.choices.tolist() == [0, 1]
    assert back.probabilities.tolist() == [[0.75, 0.25], [0.5, 0.5]]
    labels = Outputs(choices=np.array([1, 0]))
    alone = outputs_of(answers_of(labels, LABELS, frame), LABELS, 2, with_shares=False)
    assert alone.choices is not None
    assert (alone.choices.tolist(), alone.probabilities) == ([1, 0], None)
    values = Outputs(values=np.array([1.5]))
    again = outputs_of(answers_of(values, NUMBER, frame), NUMBER, 1)
    assert again.values is not None
    assert again.values.tolist() == [1.5]


def test_numpy_answers_take_the_label_of_the_greatest_probability() -> None:
    made = answers_of(SURE, LABELS, "numpy")
    made[0] = [0.25, 0.75]
    back = outputs_of(made, LABELS, 2)
    assert back.choices is not None
    assert back.choices.tolist() == [1, 0]
    assert SURE.probabilities is not None
    assert SURE.probabilities[0, 0] == 0.75


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"label": 1, "probabilities": {"true": 1, "false": 0}}], "label is 1"),
        ([{"label": True}], "KeyError: 'probabilities'"),
        ([{"label": True, "probabilities": {"true": 0.9, "false": 0.2}}], "Row 0"),
        (pl.DataFrame({"label": [True], "P(true)": [1.0]}), r"'P\(false\)' is missing"),
        (np.array([[2.0, -1.0]]), "probabilities are"),
        (np.array([[0.5, 0.5], [0.5, 0.5]]), "got 1 answers and gave 2"),
    ],
)
def test_what_is_no_answer_is_named(made: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        outputs_of(made, LABELS, 1)


def test_a_value_that_is_no_number_is_named() -> None:
    with pytest.raises(InvalidInput, match="Row 1: the value is nan"):
        outputs_of(np.array([1.0, np.nan]), NUMBER, 2)


@pytest.mark.parametrize(
    "value", ["1.5", True, None, 2**53 + 1, 10**400, np.int64(2**53 + 1), Decimal("1.5"), [1.5]]
)
def test_a_value_that_float64_does_not_hold_is_not_made_a_number(value: Any) -> None:
    with pytest.raises(InvalidInput, match="is not a number that float64 holds"):
        outputs_of([{"value": value}], NUMBER, 1)
    shares = {"true": value, "false": 0.0}
    with pytest.raises(InvalidInput, match="is not a number that float64 holds"):
        outputs_of([{"label": True, "probabilities": shares}], LABELS, 1)


@pytest.mark.parametrize("value", ["1.5", True, None, 2**53 + 1, np.int64(2**53 + 1), [1.5]])
@pytest.mark.parametrize(
    "make",
    [
        lambda value: pl.DataFrame({"value": [value]}),
        lambda value: pd.DataFrame({"value": [value]}),
        lambda value: pd.DataFrame({"value": pd.Series([value], dtype=object)}),
        lambda value: np.array([value]) if not isinstance(value, list) else None,
        lambda value: np.array([value, 1.5], dtype=object)[:1],
    ],
)
def test_tables_and_arrays_follow_the_rule_of_rows(make: Any, value: Any) -> None:
    if (made := make(value)) is not None:
        with pytest.raises(InvalidInput):
            outputs_of(made, NUMBER, 1)


@pytest.mark.parametrize("value", [3, 1.5, 2**53])
def test_tables_and_arrays_of_integers_and_objects_are_numbers(value: Any) -> None:
    column = pd.Series([value], dtype=object)
    for made in (
        pl.DataFrame({"value": [value]}),
        pd.DataFrame({"value": column}),
        np.array([value]),
        column.to_numpy(),
    ):
        found = outputs_of(made, NUMBER, 1).values
        assert found is not None
        assert (found.dtype, found.tolist()) == (np.float64, [value])


@pytest.mark.parametrize("value", [1.5, 3, np.float32(0.1), np.int64(7), 5e-324, -0.0])
def test_a_number_of_any_type_is_kept(value: Any) -> None:
    found = outputs_of([{"value": value}], NUMBER, 1)
    assert found.values is not None
    assert found.values.tobytes() == np.array([float(value)]).tobytes()
