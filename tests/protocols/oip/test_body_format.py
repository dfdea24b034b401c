"""Rows from tensors: the same rows as from native JSON, and the same refusals, whatever the way."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.errors import (
    BodyTooLarge,
    ClewlineError,
    FieldProblem,
    InvalidInput,
    MalformedInput,
    TooManyRows,
)
from clewline.protocols.oip import infer_request
from clewline.protocols.oip.body_format import OIP, OIP_BINARY
from clewline.protocols.oip.infer_request import MOST_INPUTS, MOST_KEYS, MOST_PARAMETERS
from clewline.protocols.oip.tensor_data import DTYPES, pack_strings
from clewline.serve.formats.body_format import load_format
from clewline.serve.json_reader import JsonReader
from clewline.signature.accepted_limits import AcceptedFieldLimits, AcceptedLimits
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

OUTPUT = Output(name="y", task="binary", labels=("no", "yes"))
SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer", bounds=(0.0, 100.0)),
        Field(name="job", kind="category", nullable=True, levels=("nurse", "smith")),
        Field(name="hours", kind="number", nullable=True),
        Field(name="away", kind="boolean"),
        Field(name="since", kind="datetime", nullable=True),
        Field(name="face", kind="tensor", dtype="float32", shape=(2, 2)),
        Field(name="bits", kind="tensor", dtype="bool", shape=(3,)),
        Field(name="count", kind="tensor", dtype="int8", shape=(1,)),
    ),
    output=OUTPUT,
)
NUMBERS = Signature(
    fields=(
        Field(name="a", kind="number", nullable=True),
        Field(name="b", kind="integer"),
        Field(name="c", kind="boolean"),
    ),
    output=OUTPUT,
)
CHECKER, NUMERIC = Checker(SIGNATURE), Checker(NUMBERS)
DATATYPES = {
    "age": "INT64", "job": "BYTES", "hours": "FP64", "away": "BOOL",
    "since": "BYTES", "face": "FP32", "bits": "BOOL", "count": "INT8",
}  # fmt: skip
SHAPES = {"face": [2, 2], "bits": [3], "count": [1]}

small = st.floats(-8, 8, width=16).map(float)
values = {
    "age": st.integers(-(2**53) + 1, 2**53 - 1),
    "job": st.none() | st.text(max_size=5),
    "hours": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "away": st.booleans(),
    "since": st.none() | st.sampled_from(["2024-05-01T12:00:00Z", "1999-12-31T23:59:59.5+02:00"]),
    "face": st.lists(st.lists(small, min_size=2, max_size=2), min_size=2, max_size=2),
    "bits": st.lists(st.booleans(), min_size=3, max_size=3),
    "count": st.lists(st.integers(-128, 127), min_size=1, max_size=1),
}
tables = st.lists(st.fixed_dictionaries(values), min_size=1, max_size=4)


def tensor(name: str, data: list[Any], datatype: str = "", **more: Any) -> dict[str, Any]:
    shape = [len(data), *SHAPES.get(name, [])]
    return {
        "name": name, "shape": shape, "datatype": datatype or DATATYPES[name], "data": data
    } | more  # fmt: skip


def request(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor(name, [row[name] for row in rows]) for name in DATATYPES]} | more


def binary(asked: dict[str, Any]) -> tuple[bytes, str]:
    """Write a request with raw tensors, and the length of its JSON."""
    inputs, raws = [], []
    for each in asked["inputs"]:
        parameters = dict(each.get("parameters", {}))
        if each["datatype"] == "BYTES":
            elements = [parameters.get("null") if x is None else x for x in each["data"]]
            raws.append(pack_strings([x if isinstance(x, bytes) else x.encode() for x in elements]))
        else:
            numbers = np.array([math.nan if x is None else x for x in each["data"]])
            raws.append(numbers.astype(DTYPES[each["datatype"]]).tobytes())
        head = {key: value for key, value in each.items() if key != "data"}
        inputs.append(head | {"parameters": parameters | {"binary_data_size": len(raws[-1])}})
    header = msgspec.json.encode(asked | {"inputs": inputs})
    return header + b"".join(raws), str(len(header))


def read(
    asked: Any, checker: Checker = CHECKER, max_rows: int = 100, *, raw: bool = False
) -> list[Any]:
    if raw:
        body, detail = binary(asked)
        return load_format(OIP_BINARY).read_rows(body, detail, checker, max_rows).rows
    body = asked if isinstance(asked, bytes) else msgspec.json.encode(asked)
    return load_format(OIP).read_rows(body, "", checker, max_rows).rows


def native(rows: Any, checker: Checker = CHECKER) -> list[Any]:
    return JsonReader(checker).read(msgspec.json.encode({"rows": rows})).rows


def problems(asked: Any, checker: Checker = CHECKER, *, raw: bool = False) -> list[FieldProblem]:
    with pytest.raises(InvalidInput) as caught:
        read(asked, checker, raw=raw)
    return list(caught.value.fields)


ROW: dict[str, Any] = {
    "age": 39, "job": "nurse", "hours": 40.5, "away": True, "since": "2024-05-01T12:00:00Z",
    "face": [[1.0, 2.0], [3.0, 4.0]], "bits": [True, False, True], "count": [7],
}  # fmt: skip


@given(rows=tables)
def test_tensors_in_json_give_the_rows_that_native_json_gives(rows: list[dict[str, Any]]):
    assert read(request(rows)) == native(rows)


@given(rows=tables)
def test_raw_tensors_give_the_rows_that_native_json_gives(rows: list[dict[str, Any]]):
    asked = request(rows)
    for each in asked["inputs"]:
        if each["datatype"] == "BYTES":
            each["parameters"] = {"null": "\x00null"}
    assert read(asked, raw=True) == native(rows)


@given(rows=tables, seed=st.randoms(use_true_random=False))
def test_raw_and_json_inputs_mix_in_any_order(rows: list[dict[str, Any]], seed: Any):
    asked = request(rows)
    seed.shuffle(asked["inputs"])
    for each in asked["inputs"]:
        if each["datatype"] == "BYTES":
            each["parameters"] = {"null": "\x00null"}
    body, detail = binary(asked)
    header, raw = body[: int(detail)], body[int(detail) :]
    mixed, kept, place = msgspec.json.decode(header), [], 0
    for each, plain in zip(mixed["inputs"], asked["inputs"], strict=True):
        size = each["parameters"]["binary_data_size"]
        if seed.random() < 0.5:
            del each["parameters"]["binary_data_size"]
            each["data"] = plain["data"]
        else:
            kept.append(raw[place : place + size])
        place += size
    header = msgspec.json.encode(mixed)
    found = load_format(OIP_BINARY).read_rows(
        header + b"".join(kept), str(len(header)), CHECKER, 100
    )
    assert found.rows == native(rows)


@given(
    rows=st.lists(
        st.tuples(st.none() | st.floats(-1e9, 1e9), st.integers(-99, 99), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
@pytest.mark.parametrize("raw", [False, True])
def test_one_tensor_may_hold_all_fields_where_they_are_numbers(raw: bool, rows: list[Any]):
    data = [None if x is None else float(x) for row in rows for x in row]
    matrix = {"name": "x", "shape": [len(rows), 3], "datatype": "FP64", "data": data}
    wanted = native([dict(zip("abc", row, strict=True)) for row in rows], NUMERIC)
    assert read({"inputs": [matrix]}, NUMERIC, raw=raw) == wanted


def test_data_may_be_nested_as_its_shape_says():
    one = request([ROW])
    for each in one["inputs"][:4]:
        each["shape"], each["data"] = [1, 1], [each["data"]]
    assert read(one) == native([ROW])
    matrix = {"name": "x", "shape": [1, 3], "datatype": "INT64", "data": [[1, 2, 0]]}
    assert read({"inputs": [matrix]}, NUMERIC) == native([{"a": 1, "b": 2, "c": False}], NUMERIC)


def test_text_in_base64_is_read_by_its_content_type():
    asked = request([ROW])
    encoded = base64.b64encode("nürse".encode()).decode()
    asked["inputs"][1] |= {"data": [encoded], "parameters": {"content_type": "base64"}}
    assert read(asked)[0] == native([ROW | {"job": "nürse"}])[0]
    assert read(asked, raw=True)[0] == native([ROW | {"job": "nürse"}])[0]
    asked["inputs"][1]["data"] = ["no base64!"]
    assert "base64" in problems(asked)[0].expected


def test_text_that_is_not_utf_8_is_refused_by_row():
    asked = request([ROW, ROW])
    asked["inputs"][1]["data"] = ["nurse", b"\xff"]
    (problem,) = problems(asked, raw=True)
    assert (problem.row, problem.field) == (1, "job")
    assert "UTF-8" in problem.expected


def test_a_nan_is_null_in_a_tensor_of_floats_and_refused_where_null_is():
    rows = read({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [None, 1, 0]}]}, NUMERIC)  # noqa: E501  # fmt: skip
    assert rows == native([{"a": None, "b": 1, "c": False}], NUMERIC)
    body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP64","data":[NaN,1,0]}]}'
    assert read(body, NUMERIC) == rows
    asked = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, None, 0]}]}
    for raw in (False, True):
        (problem,) = problems(asked, NUMERIC, raw=raw)
        assert (problem.field, problem.expected) == ("b", "integer, not null")


@pytest.mark.parametrize(
    ("field", "datatype", "value", "expected"),
    [
        ("age", "INT64", 2**53 + 1, "without rounding"),
        ("age", "INT64", 2**63, "as INT64 has"),
        ("age", "INT8", 128, "[-128, 127]"),
        ("age", "UINT8", -1, "[0, 255]"),
        ("age", "FP64", 1.5, "integer"),
        ("age", "INT64", True, "integer"),
        ("age", "INT64", "39", "integer"),
        ("age", "FP32", 2**24 + 1, "FP32 holds without rounding"),
        ("hours", "FP32", 1e39, "FP32 holds"),
        ("hours", "FP16", 1e9, "FP16 holds"),
        ("away", "BOOL", 1, "true or false"),
        ("away", "INT64", 2, "true or false"),
        ("job", "BYTES", 7, "text"),
        ("job", "BYTES", ["a"], "text"),
        ("since", "BYTES", "yesterday", "RFC 3339"),
        ("since", "BYTES", "2024-05-01T12:00:00", "offset"),
    ],
)
def test_a_value_that_its_field_or_its_datatype_does_not_hold_is_named(
    field: str, datatype: str, value: Any, expected: str
):
    asked = request([ROW])
    place = list(DATATYPES).index(field)
    asked["inputs"][place] |= {"datatype": datatype, "data": [value]}
    (problem,) = problems(asked)
    assert (problem.row, problem.field) == (0, field)
    assert expected in problem.expected


@pytest.mark.parametrize("literal", [b"9007199254740993.0", b"9007199254740993", b"1e400"])
def test_a_number_that_would_be_rounded_is_refused_as_in_native_json(literal: bytes):
    body = msgspec.json.encode(request([ROW])).replace(b"40.5", literal)
    (problem,) = problems(body)
    assert problem.field == "hours"


@pytest.mark.parametrize("value", [math.inf, -math.inf])
@pytest.mark.parametrize("rows", [1, 3])
def test_infinity_is_refused_in_raw_data(value: float, rows: int):
    asked = request([ROW] * rows)
    asked["inputs"][2]["data"] = [1.0] * (rows - 1) + [value]
    (problem,) = problems(asked, raw=True)
    assert (problem.row, problem.field) == (rows - 1, "hours")
    assert "finite" in problem.expected


def test_a_raw_boolean_is_0_or_1():
    asked = request([ROW])
    asked["inputs"][3]["data"] = [2]
    (problem,) = problems(asked, raw=True)
    assert (problem.field, problem.value) == ("away", 2)


def test_an_accepted_bound_and_an_accepted_level_hold_on_both_ways():
    accepted = AcceptedLimits(
        fields={
            "age": AcceptedFieldLimits(bounds=(17, 90)),
            "job": AcceptedFieldLimits(levels=("nurse",)),
        }
    )
    checker = Checker(SIGNATURE, accepted)
    asked = request([ROW, ROW | {"age": 91, "job": "smith"}, ROW])
    asked["inputs"][1]["parameters"] = {"null": "none"}
    for raw in (False, True):
        found = problems(asked, checker, raw=raw)
        assert [(p.row, p.field) for p in found] == [(1, "age"), (1, "job")]


def test_a_misspelt_input_gets_its_hint_however_many_were_misspelt_before():
    for number in range(250):
        asked = request([ROW])
        asked["inputs"][0]["name"] = f"{number}agr"
        problems(asked)
    asked["inputs"][0]["name"] = "agr"
    assert any("did you mean 'age'?" in problem.expected for problem in problems(asked))


def test_every_input_that_does_not_fit_is_named_with_the_nearest():
    asked = request([ROW])
    inputs = asked["inputs"]
    inputs[0]["name"] = "agr"
    inputs[2]["datatype"] = "BYTES"
    inputs[3]["datatype"] = "FP128"
    inputs.append(inputs[5])
    found = {(p.field, p.expected.split(";")[-1].strip()) for p in problems(asked)}
    assert {
        ("age", "the input is missing"),
        ("agr", "did you mean 'age'?"),
        ("hours", "a tensor of FP64"),
        ("face", "one input of this name"),
    } <= found
    assert any(field == "away" and "FP64" in expected for field, expected in found)


@pytest.mark.parametrize("shape", [[], [2], [1, 2], [0, 1], [1, 1, 1]])
def test_a_shape_that_is_not_one_value_a_row_is_named(shape: list[int]):
    asked = request([ROW])
    asked["inputs"][2]["shape"] = shape
    assert [p.field for p in problems(asked)] == ["hours"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "no inputs"),
        ({"inputs": None}, "inputs"),
        ({"parameters": {"content_type": "xml"}}, "'xml'"),
        ({"parameters": {"entities": ["a", "b"]}}, "2 entities and 1 rows"),
        ({"parameters": {"entities": 3}}, "not a list of strings"),
        ({"parameters": {"entities": "[1]"}}, "not a list of strings"),
        ({"parameters": {"entities": "[nonsense"}}, "not a list of strings"),
    ],
)
def test_a_request_that_is_none_says_why(change: dict[str, Any], message: str):
    with pytest.raises(MalformedInput) as caught:
        read(request([ROW]) | change)
    assert message in str(caught.value)


def test_a_key_that_stands_twice_is_refused():
    body = msgspec.json.encode(request([ROW]))
    twice = body.replace(b'"data":[39]', b'"data":[38],"data":[39]')
    with pytest.raises(MalformedInput, match="'data' stands twice"):
        read(twice)


@pytest.mark.parametrize("space", [b" ", b"\t", b"\r\n", b"  "])
def test_a_key_that_stands_twice_is_refused_wherever_its_colon_stands(space: bytes):
    body = msgspec.json.encode(request([ROW]))
    for first, second in ((b"", space), (space, b""), (space, space)):
        data = b'"data"%b:[38],"data"%b:[39]' % (first, second)
        with pytest.raises(MalformedInput, match="'data' stands twice"):
            read(body.replace(b'"data":[39]', data))
    assert read(body.replace(b'":', b'"' + space + b": ")) == native([ROW])


def test_a_key_that_is_not_known_is_passed_over():
    assert read(request([ROW], model_name="income")) == native([ROW])


@pytest.mark.parametrize("raw", [False, True])
def test_too_many_rows_are_refused_and_none_as_well(raw: bool):
    with pytest.raises(TooManyRows):
        read(
            request([ROW | {"job": "x", "since": "2024-05-01T12:00:00Z"}] * 3), max_rows=2, raw=raw
        )
    with pytest.raises(MalformedInput, match="no rows"):
        read(request([]), raw=raw)


@pytest.mark.parametrize(
    ("said", "found"), [(["a"], ["a"]), ("a", ["a"]), ('["a"]', ["a"]), (None, None)]
)
def test_entities_come_as_a_list_or_as_a_text(said: Any, found: list[str] | None):
    body = msgspec.json.encode(request([ROW], parameters={"entities": said}))
    assert load_format(OIP).read_rows(body, "", CHECKER, 10).entities == found


@pytest.mark.parametrize("detail", ["", "x", "-1", "999999", "1.5", "9" * 20])
def test_a_length_of_the_json_that_cannot_be_is_refused(detail: str):
    body, _ = binary(request([ROW]))
    with pytest.raises(MalformedInput, match="Inference-Header-Content-Length"):
        load_format(OIP_BINARY).read_rows(body, detail, CHECKER, 10)


@pytest.mark.parametrize("cut", [1, 5, -3])
def test_more_or_fewer_raw_bytes_than_the_inputs_name_are_refused(cut: int):
    body, detail = binary(request([ROW]))
    body = body[:-cut] if cut > 0 else body + b"abc"
    with pytest.raises(MalformedInput, match="bytes follow the JSON"):
        load_format(OIP_BINARY).read_rows(body, detail, CHECKER, 10)


@pytest.mark.parametrize("raw", [False, True])
def test_rows_are_written_as_objects_of_what_the_tensors_hold(raw: bool):
    asked = request([ROW, ROW | {"hours": None}])
    if raw:
        found = load_format(OIP_BINARY).rows_as_json(*binary(asked))
    else:
        found = load_format(OIP).rows_as_json(msgspec.json.encode(asked), "")
    flat = ROW | {"face": [1.0, 2.0, 3.0, 4.0]} | ({"count": 7})
    objects = [json.loads(each) for each in found]
    assert objects == [flat, flat | {"hours": None}]


def survives(body: bytes, detail: str | None) -> None:
    """Read anything: rows, or an error of ours."""
    name, detail = (OIP, "") if detail is None else (OIP_BINARY, detail)
    for checker in (CHECKER, NUMERIC):
        try:
            rows = load_format(name).read_rows(body, detail, checker, 100).rows
        except ClewlineError as error:
            msgspec.json.encode(getattr(error, "fields", ()))
        else:
            assert not checker.columns(rows).refused
            assert len(load_format(name).rows_as_json(body, detail)) == len(rows)


@settings(max_examples=300)
@given(data=st.data())
def test_a_request_with_bytes_changed_gives_rows_or_an_error_of_ours(data: st.DataObject):
    asked = request([ROW] * data.draw(st.integers(1, 2)))
    body, detail = binary(asked) if data.draw(st.booleans()) else (msgspec.json.encode(asked), None)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        piece = data.draw(st.binary(max_size=3) | st.sampled_from([b"]", b'"', b"NaN", b"[", b"-"]))
        changed[place : place + data.draw(st.integers(0, 3))] = piece
    survives(bytes(changed), detail)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    inputs=st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from([*DATATYPES, "x"]) | json_values,
                "shape": st.lists(st.integers(-1, 3), max_size=3) | json_values,
                "datatype": st.sampled_from([*DTYPES, "BYTES", "BF16"]) | json_values,
            },
            optional={
                "data": json_values,
                "parameters": json_values
                | st.dictionaries(
                    st.sampled_from(["content_type", "null", "binary_data_size"]), json_values
                ),
            },
        ),
        max_size=4,
    ),
    parameters=json_values,
    is_raw=st.booleans(),
)
def test_any_json_in_the_place_of_a_request_gives_rows_or_an_error_of_ours(
    inputs: list[Any], parameters: Any, is_raw: bool
):
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    survives(body + b"\x00" * 8 if is_raw else body, str(len(body)) if is_raw else None)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BOOL"])
@given(data=st.data())
def test_a_raw_number_has_the_bytes_of_its_datatype_and_no_others(
    rows: int, datatype: str, data: st.DataObject
):
    dtype = DTYPES[datatype]
    most = 100 if dtype.kind == "f" else min(np.iinfo(dtype).max, 2**53 - 1)
    found = data.draw(st.lists(st.integers(0, int(most)), min_size=rows, max_size=rows))
    raw = np.array(found, dtype).tobytes()
    checker = Checker(Signature(fields=(Field(name="a", kind="integer"),), output=OUTPUT))

    def ask(raw: bytes) -> list[Any]:
        one = {"name": "a", "shape": [rows], "datatype": datatype}
        header = msgspec.json.encode(
            {"inputs": [one | {"parameters": {"binary_data_size": len(raw)}}]}
        )
        return load_format(OIP_BINARY).read_rows(header + raw, str(len(header)), checker, 10).rows

    assert [row.f0 for row in ask(raw)] == found
    for wrong in (raw[:-1], raw + b"\0", raw[: len(raw) // 2], raw * 2, b""):
        with pytest.raises(InvalidInput) as caught:
            ask(wrong)
        assert f"{len(raw)} bytes for {rows} elements" in caught.value.fields[0].expected


def with_parameters(count: int, colon: bytes = b'":') -> bytes:
    keys = b",".join(b'"k%d%b0' % (number, colon) for number in range(count))
    one = b'{"name":"a","shape":[1],"datatype":"FP64","data":[1]}'
    return b'{"inputs":[%b],"parameters":{%b}}' % (one, keys)


def test_texts_with_quotes_and_colons_are_no_keys():
    text = '{"a": "b", "c":"d"}' * 8
    texts = [text] * (MOST_KEYS // 8)
    one = {"name": "t", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    body = msgspec.json.encode({"inputs": [one]})
    assert body.count(b'":') > MOST_KEYS
    assert infer_request.decode_exactly(body, None).request.inputs[0].data == texts


def test_work_without_end_is_refused_before_it_is_begun():
    nested = b'{"inputs":[{"name":"a","shape":[4000000,1],"datatype":"FP64","data":[%b]}]}'
    inputs = [{"name": "", "shape": [], "datatype": "", "data": []}] * (MOST_INPUTS + 1)
    for body, message in (
        (nested % b",".join([b"[1]"] * 4_000_000), "8000009 values"),
        (msgspec.json.encode({"inputs": inputs}), f"may have {MOST_INPUTS}"),
        (with_parameters(MOST_PARAMETERS + 1), f"more than {MOST_PARAMETERS} parameters"),
        (with_parameters(MOST_KEYS), f"{MOST_KEYS + 6} keys"),
        (with_parameters(MOST_KEYS, b'": '), f"{MOST_KEYS + 6} keys"),
        (with_parameters(MOST_KEYS, b'"\t\n:'), f"{MOST_KEYS + 6} keys"),
    ):
        with pytest.raises(BodyTooLarge, match=message):
            read(body)


def test_many_inputs_and_many_keys_that_stand_twice_are_refused_in_linear_time():
    inputs = [{"name": f"x{n}", "shape": [1], "datatype": "FP64", "data": [1]} for n in range(9999)]
    assert len(problems({"inputs": inputs})) == len(inputs) + len(DATATYPES)
    keys = b",".join(b'"k%d":1' % (n // 2) for n in range(100_000))
    with pytest.raises(MalformedInput, match="'k0' stands twice"):
        read(b'{"inputs":[],"parameters":{%b}}' % keys)
