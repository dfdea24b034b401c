"""Requests of one row that look usual: the same rows and refusals as from a reader that is new."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import ClewlineError
from clewline.protocols.oip.body_format import OIP, OIP_BINARY
from clewline.protocols.oip.one_row import HEADERS, OneRowReader
from clewline.protocols.oip.tensor_data import pack_strings
from clewline.serve.formats.body_format import load_format
from clewline.signature.accepted_limits import AcceptedFieldLimits, AcceptedLimits
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer"),
        Field(name="job", kind="category", nullable=True, levels=("nurse", "smith")),
        Field(name="hours", kind="number", nullable=True),
        Field(name="note", kind="text"),
    ),
    output=Output(name="y", task="binary", labels=("no", "yes")),
)
ACCEPTED = AcceptedLimits(
    fields={
        "age": AcceptedFieldLimits(bounds=(0.0, 100.0)),
        "job": AcceptedFieldLimits(levels=("nurse", "smith")),
    }
)
DATATYPES = {"age": "INT64", "job": "BYTES", "hours": "FP64", "note": "BYTES"}
USUAL = {"age": 39, "job": "nurse", "hours": 40.5, "note": "n"}

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-2, 102),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 1.0, 0.5, 2.0**53, "nurse", "smith", 'a":b', "-0", ["nurse"], []]),
    st.text(max_size=3),
)
rows = st.fixed_dictionaries(dict.fromkeys(DATATYPES, anything))


def request(row: dict[str, Any], shape: list[int], **more: Any) -> bytes:
    inputs = [
        {"name": name, "shape": shape, "datatype": DATATYPES[name], "data": [row[name]]}
        for name in reversed(DATATYPES)
    ]
    return msgspec.json.encode({"inputs": inputs} | more)


def raw(age: bytes, job: bytes, hours: float, note: bytes, **more: Any) -> tuple[bytes, str]:
    contents = [age, pack_strings([job]), struct.pack("<d", hours), pack_strings([note])]
    inputs = [
        {"name": name, "shape": [1], "datatype": datatype}
        | {"parameters": {"binary_data_size": len(content)}}
        for (name, datatype), content in zip(DATATYPES.items(), contents, strict=True)
    ]
    header = msgspec.json.encode({"inputs": inputs} | more)
    return header + b"".join(contents), str(len(header))


def outcome(body: bytes, checker: Checker, detail: str = "") -> str:
    """Say what a body is read as, to the sign of a zero, or how it is refused."""
    try:
        read = load_format(OIP_BINARY if detail else OIP).read_rows(body, detail, checker, 10)
    except ClewlineError as error:
        return repr((type(error), error.message, error.fix))
    return repr((read.rows, read.entities))


def checker() -> Checker:
    return Checker(SIGNATURE, ACCEPTED)


LONG_USED = checker()
for shape in ([1], [1, 1]):
    outcome(request(USUAL, shape), LONG_USED)


@given(row=rows, shape=st.sampled_from([[1], [1, 1], [2], []]))
def test_json_after_usual_requests_is_read_as_by_a_new_reader(row: dict[str, Any], shape):
    body = request(row, shape)
    assert outcome(body, LONG_USED) == outcome(body, checker())


@pytest.mark.parametrize("literal", [b"-0", b"-0.0", b"1e0", b"39.5", b"1e999", b"NaN", b"039"])
def test_literals_are_read_as_by_a_new_reader(literal):
    body = request(USUAL, [1]).replace(b"[39]", b"[" + literal + b"]")
    assert outcome(body, LONG_USED) == outcome(body, checker())


@pytest.mark.parametrize(
    ("found", "put"),
    [
        (b'"data":[39]', b'"data":[39],"data":[40]'),
        (b'"data":[39]', b'"data":[39],"dota":[40]'),
        (b'"data":[39]', b'"date":[39]'),
        (b'"INT64"', b'"INT32"'),
        (b'"INT64"', b'"BYTES"'),
        (b'"age"', b'"job"'),
        (b'{"inputs"', b'{"parameters":{"entities":["me"]},"inputs"'),
        (b'{"inputs"', b'{"inputs":[],"inputs"'),
        (b'"n"', b'"\\ud800"'),
        (b'"n"', b'"\xff"'),
    ],
)
def test_other_requests_after_usual_ones_are_read_as_by_a_new_reader(found, put):
    body = request(USUAL, [1])
    assert found in body
    body = body.replace(found, put)
    assert outcome(body, LONG_USED) == outcome(body, checker())


@given(
    age=st.integers(-5, 105).map(lambda age: struct.pack("<q", age)) | st.binary(max_size=9),
    job=st.sampled_from([b"nurse", b"smith", b"\xff", b"other"]) | st.binary(max_size=5),
    hours=st.floats(),
    note=st.text(max_size=2).map(str.encode) | st.binary(max_size=2),
    cut=st.sampled_from([0, 0, 0, 1]),
)
def test_raw_tensors_behind_a_known_header_are_read_as_by_a_new_reader(age, job, hours, note, cut):
    body, detail = raw(age, job, hours, note)
    plain, _ = raw(struct.pack("<q", 1)[: len(age)], b"nurse"[: len(job)], 1.0, b"ab"[: len(note)])
    outcome(plain, LONG_USED, detail)
    body = body[: len(body) - cut]
    assert outcome(body, LONG_USED, detail) == outcome(body, checker(), detail)


def test_entities_are_kept_behind_a_header_that_comes_again():
    body, detail = raw(struct.pack("<q", 1), b"nurse", 1.0, b"n", parameters={"entities": ["me"]})
    one = checker()
    first = outcome(body, one, detail)
    assert "me" in first
    assert outcome(body, one, detail) == first


def test_only_so_many_headers_are_remembered():
    one = checker()
    for number in range(HEADERS + 3):
        body, detail = raw(struct.pack("<q", 1), b"nurse", 1.0, b"n", id=str(number))
        outcome(body, one, detail)
    remembered: OneRowReader = reader_of(one).one_row
    assert len(remembered._headers) == 3
    assert remembered.read(body, int(detail)) == [1.0, 1.0, "nurse", "n"]


def test_another_look_becomes_the_usual_one_when_it_comes_often():
    one = checker()
    outcome(request(USUAL, [1]), one)
    other = request(USUAL, [1, 1])
    for _ in range(100):
        outcome(other, one)
    assert reader_of(one).one_row.read(other, None) == [39.0, 40.5, "nurse", "n"]
    assert reader_of(one).one_row.read(request(USUAL, [1]), None) is None


def reader_of(one: Checker) -> Any:
    from clewline.protocols.oip.body_format import _readers

    return _readers[one]
