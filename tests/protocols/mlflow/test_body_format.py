"""Rows from MLflow's ways to send them: the rows of native JSON, and nothing but our errors."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.errors import ClewlineError, InvalidInput, MalformedInput, TooManyRows
from clewline.protocols.mlflow.body_format import MLFLOW
from clewline.serve.formats.body_format import load_format
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

OUTPUT = Output(name="y", task="binary", labels=("no", "yes"))
FIELDS = (
    Field(name="age", kind="integer", nullable=True),
    Field(name="job", kind="category", nullable=True),
    Field(name="away", kind="boolean"),
    Field(name="since", kind="datetime", nullable=True),
    Field(name="face", kind="tensor", dtype="float32", shape=(2,)),
)
CHECKER = Checker(Signature(fields=FIELDS, output=OUTPUT))
PLAIN = Checker(Signature(fields=FIELDS[:3], output=OUTPUT))
FACES = Checker(Signature(fields=FIELDS[4:], output=OUTPUT))
AGES = Checker(Signature(fields=FIELDS[:1], output=OUTPUT))

rows = st.fixed_dictionaries(
    {
        "age": st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
        "job": st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
        "away": st.booleans(),
        "since": st.none() | st.sampled_from(["2024-05-01T12:00:00Z", "1999-12-31T00:00:00+02:00"]),
        "face": st.lists(st.floats(-8, 8, width=16), min_size=2, max_size=2),
    }
)
orders = st.permutations([field.name for field in FIELDS])
"""In which keys may stand, in each row anew: nothing rests on it."""
tables = st.lists(
    st.builds(lambda row, order: {name: row[name] for name in order}, rows, orders),
    min_size=1,
    max_size=4,
)


def ways(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [field.name for field in FIELDS if field.name in table[0]]
    data = [[row[name] for name in names] for row in table]
    return [
        {"dataframe_split": {"columns": names, "data": data}},
        {"dataframe_split": {"columns": names[::-1], "data": [row[::-1] for row in data]}},
        {"dataframe_split": {"data": data}},
        {"dataframe_records": table},
        {"instances": table},
        {"inputs": data},
        {"inputs": {name: [row[name] for row in table] for name in names}},
    ]


def read(sent: Any, checker: Checker = CHECKER, max_rows: int = 100) -> Any:
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return load_format(MLFLOW).read_rows(body, "", checker, max_rows)


@settings(max_examples=50)
@given(tables)
def test_every_way_gives_the_rows_of_native_json(table):
    native = CHECKER.decode(json.dumps(table).encode())
    for sent in ways(table):
        assert read(sent).rows == native


@settings(max_examples=50)
@given(tables)
def test_the_quick_way_and_the_exact_one_read_the_same(table):
    few = [{name: row[name] for name in ("age", "job", "away")} for row in table]
    native = PLAIN.decode(json.dumps(few).encode())
    split = ways(few)[0]
    assert read(split, PLAIN).rows == read(split | {"params": {}}, PLAIN).rows == native


def test_a_table_that_stands_twice_is_refused_though_its_key_is_escaped():
    for key in (b"dataframe_records", rb"dataframe\u005frecords"):
        with pytest.raises(MalformedInput, match="'dataframe_records', 'dataframe_records'"):
            read(b'{"dataframe_records": [{"age": 1}], "%b": [{"age": 2}]}' % key, AGES)


def test_a_part_of_a_table_that_stands_twice_is_refused_though_its_key_is_escaped():
    for key in (b"data", rb"d\u0061ta"):
        body = b'{"dataframe_split": {"columns": ["age"], "data": [[1]], "%b": [[2]]}}' % key
        with pytest.raises(ClewlineError):
            read(body, AGES)


def test_nan_and_nat_are_null_and_infinity_is_refused():
    row = b'{"age": NaN, "job": NaN, "away": true, "since": "NaT", "face": [1, 2]}'
    (read_row,) = read(b'{"dataframe_records": [%b]}' % row).rows
    assert msgspec.structs.astuple(read_row) == (None, True, None, None, [1.0, 2.0])
    for bad in (row.replace(b'"age": NaN', b'"age": Infinity'), row.replace(b"[1,", b"[NaN,")):
        with pytest.raises(InvalidInput) as caught:
            read(b'{"dataframe_records": [%b]}' % bad)
        assert len(caught.value.fields) == 1


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("2024-05-01T12:00:00", "2024-05-01T12:00:00Z"),
        ("2024-05-01 12:00:00.250", "2024-05-01T12:00:00.25Z"),
        ("2024-05-01", "2024-05-01T00:00:00Z"),
        ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00Z"),
    ],
)
def test_a_time_as_pandas_writes_it_is_one_of_utc_unless_it_says_otherwise(sent, meant):
    row = {"age": 1, "job": "a", "away": True, "since": sent, "face": [1, 2]}
    native = CHECKER.decode(json.dumps(row | {"since": meant}).encode())
    assert read({"dataframe_records": [row]}).rows == native


def test_integers_may_come_as_whole_floats_and_no_others():
    assert read({"inputs": {"age": [39.0]}}, AGES).rows[0].f0 == 39.0
    with pytest.raises(InvalidInput, match=r"39\.5"):
        read({"inputs": {"age": [39.5]}}, AGES)


@pytest.mark.parametrize("sent", [[1, 2], [[1], [2]], {"age": [1, 2]}, {"age": [[1], [2]]}])
def test_the_only_field_may_come_without_its_name(sent):
    assert [row.f0 for row in read({"inputs": sent}, AGES).rows] == [1.0, 2.0]


def test_a_model_of_one_tensor_takes_arrays_as_they_are():
    assert [row.f0 for row in read({"inputs": [[1, 2], [3, 4]]}, FACES).rows] == [[1, 2], [3, 4]]


def test_columns_that_no_field_has_are_left_out_and_a_missing_field_is_not_made_up():
    assert len(read({"inputs": {"age": [1], "id": ["x"]}}, AGES).rows) == 1
    with pytest.raises(InvalidInput, match="missing") as caught:
        read({"inputs": {"agee": [1]}}, AGES)
    assert caught.value.fields[1].expected == "no such field; did you mean 'age'?"


def test_entities_are_read_and_more_rows_than_allowed_are_refused():
    assert read({"inputs": [1, 2], "entities": ["a", "b"]}, AGES).entities == ["a", "b"]
    for extra in ({}, {"params": {}}):
        table = {"dataframe_split": {"columns": ["age"], "data": [[1], [2], [3]]}} | extra
        with pytest.raises(TooManyRows):
            read(table, AGES, 2)


@pytest.mark.parametrize("key", ["columns", "data", "dataframe_split"])
def test_a_key_that_comes_twice_is_refused(key):
    split = b'{"columns": ["age"], "data": [[1]]}'
    if key == "dataframe_split":
        body = b'{"dataframe_split": %b, "dataframe_split": %b}' % (split, split)
    else:
        body = b'{"dataframe_split": %b}' % split.replace(b"}", b', "%b": [["x"]]}' % key.encode())
    with pytest.raises(MalformedInput):
        read(body, AGES)


def test_inputs_are_written_as_objects_for_why():
    write = load_format(MLFLOW).rows_as_json
    split = {"columns": ["age", "x"], "data": [[1.0, float("nan")]]}
    assert write(json.dumps({"dataframe_split": split}).encode(), "") == [b'{"age":1.0,"x":null}']
    assert write(b'{"inputs": [[1, "a"], 2]}', "") == [b'{"0":1,"1":"a"}', b'{"0":2}']
    deep = b'{"inputs": {"age": [1], "x": [%b1%b]}}' % (b"[" * 300, b"]" * 300)
    (written,) = write(deep, "")
    assert msgspec.json.decode(written)["age"] == 1
    assert b"[array of 1]" in written.replace(b'"', b"")
    assert write(b'{"inputs": [{"age": 1, "\\ud800": "\\ud800"}]}', "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["age", "columns", "data", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
keys = st.sampled_from(
    ["dataframe_split", "dataframe_records", "instances", "inputs", "params", "entities"]
)


def survive(body: bytes) -> None:
    """Reading gives rows or an error of ours; and what has rows can be shown."""
    for checker in (CHECKER, PLAIN, FACES, AGES):
        try:
            found = read(body, checker)
        except ClewlineError:
            continue
        shown = load_format(MLFLOW).rows_as_json(body, "")
        assert len(shown) == len(found.rows)
        assert all(isinstance(msgspec.json.decode(row), dict) for row in shown)


@settings(max_examples=200)
@given(st.dictionaries(keys, json_values, max_size=2))
def test_any_json_gives_rows_or_an_error_of_ours(document):
    survive(json.dumps(document).encode())


@settings(max_examples=200)
@given(tables, st.data())
def test_bytes_that_were_changed_give_rows_or_an_error_of_ours(table, data):
    body = bytearray(json.dumps(data.draw(st.sampled_from(ways(table)))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    survive(bytes(body[: len(body) - cut]))
