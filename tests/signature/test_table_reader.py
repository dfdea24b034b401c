"""Tables under the rules of the signature."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from clewline.errors import InvalidInput
from clewline.signature.accepted_limits import AcceptedFieldLimits, AcceptedLimits
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature
from clewline.signature.table_reader import MOST_PROBLEMS

SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer", bounds=(13.0, 94.0)),
        Field(name="job", kind="category", levels=("nurse", "smith")),
    ),
    output=Output(name="y", task="binary", labels=("no", "yes")),
)


def refused(table: Any, checker: Checker | None = None) -> list[tuple[int, str | None, Any]]:
    with pytest.raises(InvalidInput) as caught:
        (checker or Checker(SIGNATURE)).table(table)
    return [(p.row, p.field, p.value) for p in caught.value.fields]


def test_columns_may_stand_in_any_order() -> None:
    checked = Checker(SIGNATURE).table(pl.DataFrame({"job": ["smith"], "age": [20]}))
    assert checked.columns.numbers.tolist() == [[20.0]]
    assert checked.columns.texts.tolist() == [["smith"]]


def test_bad_cells_are_named_by_row() -> None:
    table = pl.DataFrame({"age": [20.0, 20.5, None, 30.0], "job": ["smith", "x", None, None]})
    assert refused(table) == [
        (1, "age", 20.5),
        (2, "age", None),
        (2, "job", None),
        (3, "job", None),
    ]


def test_missing_and_unknown_columns_are_named_once() -> None:
    table = pl.DataFrame({"aeg": [20, 21], "job": ["smith", "smith"]})
    with pytest.raises(InvalidInput) as caught:
        Checker(SIGNATURE).table(table)
    assert [(p.row, p.field, p.expected) for p in caught.value.fields] == [
        (0, "age", "integer; the column is missing"),
        (0, "aeg", "no such field; did you mean 'age'?"),
    ]


def test_flags_name_rows_and_accepted_bounds_refuse_them() -> None:
    table = pl.DataFrame({"age": [20, 99], "job": ["king", "smith"]})
    flags = Checker(SIGNATURE).table(table).flags
    assert [(row, flag.field, flag.value) for row, flag in flags] == [
        (1, "age", 99),
        (0, "job", "king"),
    ]
    accepted = AcceptedLimits(
        {
            "age": AcceptedFieldLimits(bounds=(13, 94)),
            "job": AcceptedFieldLimits(levels=("nurse", "smith")),
        }
    )
    assert refused(table, Checker(SIGNATURE, accepted)) == [(0, "job", "king"), (1, "age", 99)]


def test_integers_that_a_float_would_round_are_refused() -> None:
    table = pl.DataFrame({"age": [2**53, 2**53 + 1], "job": ["smith"] * 2})
    assert refused(table) == [(1, "age", 2**53 + 1)]


@pytest.mark.parametrize(
    "ages",
    [
        pd.array([20, None], dtype="Int64"),
        pd.array([20.0, np.nan]),
        pd.array([20.0, None], dtype="Float64"),
        pd.array([20, None], dtype="int64[pyarrow]"),
        pd.Series([20, None], dtype=object),
        pd.Series([20, pd.NA], dtype=object),
        pd.Series([np.int16(20), np.float32("nan")], dtype=object),
    ],
)
def test_every_null_of_pandas_is_null(ages: Any) -> None:
    nullable = Signature(
        fields=(Field(name="age", kind="integer", nullable=True),), output=SIGNATURE.output
    )
    numbers = Checker(nullable).table(pd.DataFrame({"age": ages})).columns.numbers
    assert numbers[0, 0] == 20
    assert np.isnan(numbers[1, 0])


@pytest.mark.parametrize("kind", ["str", "category", "object", "string[pyarrow]"])
def test_every_text_of_pandas_is_text(kind: Any) -> None:
    nullable = Signature(
        fields=(Field(name="job", kind="category", nullable=True, levels=("smith",)),),
        output=SIGNATURE.output,
    )
    table = pd.DataFrame({"job": pd.Series(["smith", None, "x"], dtype=kind)})
    checked = Checker(nullable).table(table)
    assert checked.columns.texts.tolist() == [["smith"], [None], ["x"]]
    assert [row for row, _ in checked.flags] == [2]


def test_times_without_an_offset_and_dates_are_taken_as_utc() -> None:
    when = Signature(
        fields=(Field(name="when", kind="datetime", nullable=True),), output=SIGNATURE.output
    )
    noon = dt.datetime(2024, 5, 1, 12)
    zone = dt.timezone(dt.timedelta(hours=2))
    for cells, hours in [
        (pl.Series([noon, None]), 12),
        (pl.Series([noon, None]).dt.cast_time_unit("ns"), 12),
        (pl.Series([noon.replace(tzinfo=zone), None]), 10),
        (pl.Series([noon.date(), None]), 0),
        (pd.Series([noon, None]), 12),
        (pd.Series([noon.replace(tzinfo=zone), None]), 10),
        (pd.Series([noon, pd.NaT], dtype=object), 12),
    ]:
        make = pl.DataFrame if isinstance(cells, pl.Series) else pd.DataFrame
        numbers = Checker(when).table(make({"when": cells})).columns.numbers[:, 0]
        assert numbers[0] == (dt.date(2024, 5, 1).toordinal() - 719163) * 86400e6 + hours * 3600e6
        assert np.isnan(numbers[1])


def test_no_rows_are_no_problem() -> None:
    table = pl.DataFrame({"age": [], "job": []}, schema={"age": pl.Int64, "job": pl.String})
    assert Checker(SIGNATURE).table(table).columns.numbers.shape == (0, 1)


def test_a_table_of_bad_cells_names_ten_thousand_of_them() -> None:
    table = pl.DataFrame({"age": ["x"] * 10_001, "job": ["smith"] * 10_001})
    assert len(refused(table)) == MOST_PROBLEMS
