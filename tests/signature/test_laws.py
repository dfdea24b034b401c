"""Laws of the validator: fast and slow pass agree, JSON and table agree."""

import datetime as dt
import json
import math
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clewline.errors import InvalidInput
from clewline.signature import dataframes, json_rows
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

FIELDS = (
    Field(name="job", kind="category", levels=("nurse", "smith")),
    Field(name="age", kind="integer", bounds=(13.0, 94.0)),
    Field(name="note", kind="text", nullable=True),
    Field(name="hours-per week", kind="number", nullable=True, bounds=(0.0, 99.5)),
    Field(name="class", kind="boolean"),
    Field(name="größe:x", kind="integer", nullable=True),
    Field(name="rows", kind="datetime", nullable=True),
)
SIGNATURE = Signature(fields=FIELDS, output=Output(name="y", task="binary", labels=("no", "yes")))
CHECKER = Checker(SIGNATURE)
PIXELS = Checker(
    Signature(
        fields=(Field(name="p", kind="tensor", dtype="int16", shape=(2,)), *FIELDS[:2]),
        output=SIGNATURE.output,
    )
)

ODD = r"""
null true false 0 -0 -0.0 39 39.0 1E2 1e-2 39.5 1e400 -1e400 1e308 1e309 1e-400 NaN Infinity
-Infinity 9007199254740991 9007199254740992 9007199254740993 -9007199254740993
9007199254740993.0 9007199254740992.5 9007199254740993e0 18446744073709551616 1e23 1e22
100000000000000000000000 01 1. .5 +1 1e 0x10 "39" "nurse" "NaN" "" "\ud800" "\ud83d\ude00"
"\u0000" "a:b" "a\"b" "\\" "\x" [] {} [1,2] [1,2.0] [1,99999] [1,true] [[1],[2]]
{"age":1,"age":2} "2024-05-01T12:00:00Z" "2024-05-01t12:00:00.123456789+01:00"
"2024-05-01T12:00:00" "2024-05-01" "9999-12-31T23:59:59.999999Z" "9999-12-31T23:59:59Z"
"0001-01-01T00:00:00+23:59" "2024-02-30T00:00:00Z" "2016-12-31T23:59:60Z"
39.00000000000000000001 0.1e1 1e0000002 --1
"""
LITERALS = st.one_of(
    st.sampled_from([*ODD.split(), '"2024-05-01 12:00:00Z"']),
    st.just("9" * 400),
    st.just("1" * 5000),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.text(max_size=5).map(json.dumps),
    st.text(max_size=5).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.datetimes(timezones=st.timezones()).map(lambda moment: json.dumps(moment.isoformat())),
)
FITTING = {
    "job": ['"nurse"', '"king"'],
    "age": ["39", "39.0", "97"],
    "note": ["null", '"a \\"b\\": c"', '"x"'],
    "hours-per week": ["null", "1.5", "1E2"],
    "class": ["true", "false"],
    "größe:x": ["null", "3", "9007199254740994"],
    "rows": ["null", '"2024-05-01T12:00:00Z"'],
    "p": ["[1, 2]", "[1e0,-0.0]"],
}
SPACE = st.sampled_from(["", "", "", " ", "\n\t\r "])


@st.composite
def rows(draw: st.DrawFn, fields: tuple[Field, ...]) -> str:
    """The text of a row that is good or nearly so: odd literals, keys missing or repeated."""
    pairs = []
    for field in draw(st.permutations(fields)):
        fitting = st.sampled_from(FITTING[field.name])
        odd = draw(st.integers(0, 11))
        value = draw(LITERALS if odd == 0 else fitting)
        key = json.dumps(field.name, ensure_ascii=draw(st.booleans()))
        if odd == 1:
            key = draw(st.sampled_from(['"agee"', '"\\u0061ge"', '"Age"', '""', '"\\ud800"', key]))
        if odd == 2:
            pairs.append((key, draw(st.one_of(LITERALS, fitting))))
        if odd != 3:
            pairs.append((key, value))
    space = draw(SPACE)
    return "{" + ",".join(f"{space}{key}{space}:{space}{v}" for key, v in pairs) + space + "}"


def bodies(fields: tuple[Field, ...]) -> st.SearchStrategy[bytes]:
    one = rows(fields).map(lambda text: text.encode("utf-8", "surrogatepass"))
    others = st.one_of(one, one, one, LITERALS.map(lambda text: text.encode("utf-8")))
    many = st.lists(others, max_size=4).map(lambda parts: b"[" + b", ".join(parts) + b"]")
    return st.one_of(one, many)


def slow(checker: Checker, body: bytes) -> list[Any] | None:
    """What the second pass alone decides."""
    try:
        return checker.settle(json_rows.parse_exactly(body))
    except InvalidInput:
        return None


def whole(checker: Checker, body: bytes) -> list[Any] | None:
    """What both passes together decide; anything but an InvalidInput is a failure."""
    try:
        return checker.decode(body)
    except InvalidInput as error:
        msgspec.json.encode(error.fields)  # an answer can say it
        return None


def agree(checker: Checker, body: bytes) -> None:
    """Whatever the fast pass is content with, the slow one is, with the same values."""
    sure = checker._decode_fast(body)
    if sure and not checker.suspicious(body, sure):
        assert slow(checker, body) == sure
    assert whole(checker, body) == slow(checker, body)


@settings(max_examples=600)
@given(bodies(FIELDS))
@example(b'[{"age": 1}, {"age": 1, "age": 2}]')
def test_the_fast_and_the_slow_pass_give_the_same_verdict_and_values(body: bytes) -> None:
    agree(CHECKER, body)


@settings(max_examples=150)
@given(bodies((Field(name="p", kind="tensor"), *FIELDS[:2])))
def test_they_do_so_for_tensors(body: bytes) -> None:
    agree(PIXELS, body)


@settings(max_examples=300)
@given(bodies(FIELDS), st.data())
def test_they_do_so_for_damaged_bodies(body: bytes, data: st.DataObject) -> None:
    """One byte removed, put in or changed."""
    place = data.draw(st.integers(0, max(len(body) - 1, 0)))
    byte = data.draw(st.one_of(st.binary(max_size=2), st.sampled_from([b'"', b",", b"\\", b"}"])))
    removed = data.draw(st.integers(0, 1))
    agree(CHECKER, body[:place] + byte + body[place + removed :])


def test_a_null_text_does_not_hide_a_repeated_key() -> None:
    """Its two missing quotation marks are those that the second key adds."""
    body = "{" + ",".join(f"{json.dumps(f.name)}:{FITTING[f.name][0]}" for f in FIELDS) + "}"
    agree(CHECKER, body.replace('"age"', '"class":true,"age"').encode())
    assert whole(CHECKER, body.replace('"age"', '"class":true,"age"').encode()) is None


def test_valid_rows_pass_the_fast_pass_alone() -> None:
    """The law would hold of a fast pass that is never content, so show that it is."""
    body = "{" + ",".join(f"{json.dumps(f.name)}:{FITTING[f.name][0]}" for f in FIELDS) + "}"
    sure = CHECKER._decode_fast(body.encode())
    assert sure
    assert not CHECKER.suspicious(body.encode(), sure)


@settings(max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_bits(number: float) -> None:
    body = json.dumps({f.name: json.loads(FITTING[f.name][0]) for f in FIELDS})
    data = json.loads(body) | {"hours-per week": number}
    values = CHECKER.columns(CHECKER.decode(json.dumps(data).encode())).columns.numbers
    assert values[0, 1].tobytes() == np.float64(number).tobytes()


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 39, 97, 2**53, 2**53 + 1, -(2**53) - 1, 2**62, 2**62 + 1]),
    st.sampled_from([0.0, -0.0, 39.0, 39.5, 1e23, 1e308, math.inf, -math.inf, math.nan, 2.0**60]),
    st.sampled_from(["nurse", "king", "39", "", "ü", "2024-05-01T12:00:00Z"]),
    st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
)
GOOD_CELLS = {
    "job": "nurse",
    "age": 39,
    "note": None,
    "hours-per week": 1.5,
    "class": True,
    "größe:x": 3,
    "rows": None,
}


@st.composite
def cell_rows(draw: st.DrawFn) -> dict[str, Any]:
    row = dict(GOOD_CELLS)
    for name in draw(st.sets(st.sampled_from(list(row)), max_size=3)):
        cell = draw(CELLS)
        # JSON has no date-times: in a field of texts the two forms are different values.
        row[name] = cell if name == "rows" or not isinstance(cell, dt.datetime) else "text"
    for name in draw(st.sets(st.sampled_from(list(row)), max_size=1)):
        if draw(st.integers(0, 5)) == 0:
            del row[name]
    if draw(st.integers(0, 8)) == 0:
        row["agee"] = 1
    return row


def as_json(row: dict[str, Any]) -> bytes:
    def plain(value: Any) -> Any:
        if isinstance(value, float) and math.isnan(value):
            return None
        return value.isoformat() if isinstance(value, dt.datetime) else value

    return json.dumps({name: plain(value) for name, value in row.items()}).encode()


def verdict(check: Any, data: Any) -> Any:
    try:
        checked = check(data)
    except InvalidInput as error:
        return {(problem.row, problem.field) for problem in error.fields}
    columns = checked.columns
    return columns.numbers.tobytes(), columns.texts.tolist(), checked.flags


def by_json(body: bytes) -> Any:
    return verdict(lambda data: CHECKER.columns(CHECKER.decode(data)), body)


@settings(max_examples=300)
@given(cell_rows())
def test_a_table_row_gets_the_verdict_of_the_same_row_as_json(row: dict[str, Any]) -> None:
    expected = by_json(as_json(row))
    assert verdict(CHECKER.table, pl.DataFrame({name: [v] for name, v in row.items()})) == expected
    frame = pd.DataFrame({name: pd.Series([v], dtype=object) for name, v in row.items()})
    assert verdict(CHECKER.table, frame) == expected


@settings(max_examples=60)
@given(st.lists(cell_rows(), min_size=2, max_size=6))
def test_a_table_of_objects_gets_the_verdict_of_its_rows(table: list[dict[str, Any]]) -> None:
    """As pandas holds what nobody has cleaned: every column of Python objects."""
    whole_rows = [dict(GOOD_CELLS) | {k: v for k, v in row.items() if k != "agee"} for row in table]
    frame = pd.DataFrame(
        {name: pd.Series([row[name] for row in whole_rows], dtype=object) for name in GOOD_CELLS}
    )
    body = b"[" + b",".join(map(as_json, whole_rows)) + b"]"
    assert verdict(CHECKER.table, frame) == by_json(body)


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame])
def test_typed_columns_and_json_give_the_same_arrays(make: Any) -> None:
    rows_ = [
        dict(GOOD_CELLS, age=age, note=note, **{"hours-per week": hours})
        for age, note, hours in [(13, "x", 1.0), (95, None, None), (94, "ü", 2.5)]
    ]
    columns = {name: [row[name] for row in rows_] for name in GOOD_CELLS}
    body = b"[" + b",".join(map(as_json, rows_)) + b"]"
    expected = by_json(body)
    assert verdict(CHECKER.table, make(columns)) == expected
    assert len(expected[2]) == 1


def test_a_nan_of_either_sign_is_one_null() -> None:
    for values in ([1.0, -math.nan], [1.0, -math.nan, None]):
        series = dataframes.open_table(pl.DataFrame({"a": values}))["a"]
        expected = np.array([1.0, *[math.nan] * (len(values) - 1)])
        assert dataframes.column_floats(series).tobytes() == expected.tobytes()
