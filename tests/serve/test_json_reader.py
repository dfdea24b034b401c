"""A large body is read as a small one, however many portions it takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clewline.errors import InvalidInput, TooManyRows
from clewline.serve.formats.body_format import RequestRows
from clewline.serve.json_reader import PORTION_ROWS, SMALL_BYTES, JsonReader
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature

ROWS = 2 * PORTION_ROWS + 1
AGE = Field(name="age", kind="number")
JOB = Field(name="job", kind="category", nullable=True)
SIGNATURE = Signature(fields=(AGE, JOB), output=Output(name="pay", task="regression"))


@pytest.fixture
def reader() -> JsonReader:
    return JsonReader(Checker(SIGNATURE), max_rows=5000)


def _body(rows: list[dict[str, Any]], **more: Any) -> bytes:
    return msgspec.json.encode({"rows": rows} | more)


def _some(count: int) -> list[dict[str, Any]]:
    return [{"age": row + 0.5, "job": "x" * 80 if row % 3 else None} for row in range(count)]


def _read(reader: JsonReader, body: bytes) -> RequestRows:
    *_, last = reader.read_large(body)
    assert last is not None
    return last


def test_rows_and_entities_are_those_of_a_reading_in_one_go(reader: JsonReader) -> None:
    body = _body(_some(ROWS), entities=[str(row) for row in range(ROWS)])
    assert len(body) > SMALL_BYTES
    found, expected = _read(reader, body), reader.read(body)
    assert (found.rows, found.entities) == (expected.rows, expected.entities)


def test_every_bad_row_is_named_by_its_place(reader: JsonReader) -> None:
    rows = _some(ROWS)
    for place in (0, PORTION_ROWS, ROWS - 1):
        rows[place]["age"] = "old"
    with pytest.raises(InvalidInput) as caught:
        _read(reader, _body(rows))
    assert [problem.row for problem in caught.value.fields] == [0, PORTION_ROWS, ROWS - 1]


def test_a_repeated_key_in_a_row_is_refused(reader: JsonReader) -> None:
    body = _body(_some(ROWS)).replace(b'{"age":7.5,', b'{"age":7.5,"age":7.5,')
    with pytest.raises(InvalidInput) as caught:
        _read(reader, body)
    assert [problem.row for problem in caught.value.fields] == [7]


def test_more_rows_than_allowed_are_refused(reader: JsonReader) -> None:
    with pytest.raises(TooManyRows):
        _read(reader, _body([{"age": 1.0, "job": None}] * 5001))


def test_others_may_run_after_every_portion(reader: JsonReader) -> None:
    *steps, last = reader.read_large(_body(_some(ROWS)))
    assert last is not None
    assert len(steps) > ROWS // PORTION_ROWS
    assert not any(steps)
