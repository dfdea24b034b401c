"""A large body is read as a small one, however many portions it takes."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from clewline.errors import BodyTooLarge, InvalidInput, MalformedInput, TooManyRows
from clewline.serve.formats.body_format import RequestRows
from clewline.serve.json_reader import LARGE_BYTES, PORTION_BYTES, SMALL_BYTES, JsonReader
from clewline.signature.check import Checker
from clewline.signature.field import Field, Output, Signature
from clewline.signature.json_rows import MOST_PROBLEMS

ROWS = 1025
CALLS = 300_000
"""Calls of functions and their ends in one step: some 20 ms, mostly to write 10,000 problems."""
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
    return _read_counting(reader, body)[0]


def _read_counting(reader: JsonReader, body: bytes) -> tuple[RequestRows, list[int]]:
    """Read a body as the server does; return the rows, and the calls of functions in each step."""
    reading, calls = reader.read_large(body), [0]

    def count(*_: Any) -> None:
        calls[-1] += 1

    sent, outcome = None, None
    while not isinstance(outcome, RequestRows):
        sys.setprofile(count)
        try:
            outcome = reading.send(sent)
        finally:
            sys.setprofile(None)
            assert max(calls) < CALLS, calls
        calls.append(0)
        sent = None
        if callable(outcome):
            sent = Future()
            try:
                sent.set_result(outcome())
            except BaseException as error:
                sent.set_exception(error)
    return outcome, calls


def test_rows_and_entities_are_those_of_a_reading_in_one_go(reader: JsonReader) -> None:
    body = _body(_some(ROWS), entities=[str(row) for row in range(ROWS)])
    assert len(body) > SMALL_BYTES
    found, expected = _read(reader, body), reader.read(body)
    assert (found.rows, found.entities) == (expected.rows, expected.entities)


def test_every_bad_row_is_named_by_its_place(reader: JsonReader) -> None:
    rows = _some(ROWS)
    for place in (0, 700, ROWS - 1):
        rows[place]["age"] = "old"
    with pytest.raises(InvalidInput) as caught:
        _read(reader, _body(rows))
    assert [problem.row for problem in caught.value.fields] == [0, 700, ROWS - 1]


def test_a_repeated_key_in_a_row_is_refused(reader: JsonReader) -> None:
    body = _body(_some(ROWS)).replace(b'{"age":7.5,', b'{"age":7.5,"age":7.5,')
    with pytest.raises(InvalidInput) as caught:
        _read(reader, body)
    assert [problem.row for problem in caught.value.fields] == [7]


def test_more_rows_than_allowed_are_refused(reader: JsonReader) -> None:
    with pytest.raises(TooManyRows):
        _read(reader, _body([{"age": 1.0, "job": None}] * 5001))


def test_others_may_run_after_every_portion(reader: JsonReader) -> None:
    body = _body(_some(ROWS))
    assert len(_read_counting(reader, body)[1]) > len(body) // LARGE_BYTES


def _keys(count: int) -> bytes:
    return b",".join(b'"k%06d":1' % place for place in range(count))


MANY = 300_000
ROW = b'{"age":1,"job":null}'
ATTACKS = {
    "a row of many unknown keys": b'{"rows":[{%b}]}' % _keys(MANY),
    "a bare row of many unknown keys": b"{%b}" % _keys(MANY),
    "one key many times": b'{"rows":[{%b"age":1}]}' % (b'"age":1,' * MANY),
    "rows of many unknown keys": b'{"rows":[%b]}' % b",".join([b"{%b}" % _keys(5000)] * 60),
    "an array in an unknown key": b'{"rows":[{"x":[%b1]}]}' % (b"1," * MANY * 10),
    "an array in a field": b'{"rows":[{"age":[%b1],"job":null}]}' % (b"1," * MANY * 10),
    "rows that are numbers": b'{"rows":[%b0]}' % (b"0," * MANY),
    "rows that are empty": b'{"rows":[%b{}]}' % (b"{}," * MANY),
    "rows twice": b'{"rows":[%b{}],"rows":[%b]}' % (b"{}," * MANY, ROW),
    "rows twice, once with escapes": b'{"rows":[%b{}],"\\u0072ows":[%b]}' % (b"{}," * MANY, ROW),
    "many entities": b'{"entities":[%b""],"rows":[%b]}' % (b'"",' * MANY, ROW),
    "places between rows within strings": b'{"rows":[%b]}'
    % b",".join([b'{"age":1,"job":"},{%b"}' % (b"},{" * (at % 7)) for at in range(MANY // 10)]),
    "deep arrays": b'{"rows":[{"x":%b%b}]}' % (b"[" * MANY, b"]" * MANY),
    "a body that is not an object": b"[%b0]" % (b"0," * MANY),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_body_of_very_much_work_is_refused_in_short_steps(
    reader: JsonReader, attack: str
) -> None:
    with pytest.raises((BodyTooLarge, InvalidInput, MalformedInput, TooManyRows)):
        _read(reader, ATTACKS[attack])


def test_a_row_of_long_texts_is_read_whatever_stands_in_them(reader: JsonReader) -> None:
    for text in ('"},{"' * 40_000, "\\" * 200_001, "a, b, c and more text than commas, " * 9000):
        for body in (_body([{"age": 1.0, "job": text}] * 2), _body([{"age": 1.0, "job": text}])):
            assert [row.f1 for row in _read(reader, body).rows] == [text] * body.count(b'"age"')


def test_a_bad_value_beside_a_long_text_is_named(reader: JsonReader) -> None:
    rows = [*_some(700), {"age": "old", "job": "x, " * LARGE_BYTES}, *_some(9)]
    with pytest.raises(InvalidInput) as caught:
        _read(reader, _body(rows))
    assert [(each.row, each.field) for each in caught.value.fields] == [(700, "age")]


def test_no_more_problems_are_looked_for_than_an_answer_names(reader: JsonReader) -> None:
    with pytest.raises(InvalidInput) as caught:
        _read(reader, b'{"rows":[%b]}' % b",".join([b'{"a":1,"b":2,"c":3}'] * 5000))
    assert MOST_PROBLEMS <= len(caught.value.fields) < MOST_PROBLEMS + PORTION_BYTES


@pytest.mark.parametrize("space", ["", " ", "\n\t"])
def test_an_envelope_may_have_space_anywhere_and_its_parts_in_any_order(
    reader: JsonReader, space: str
) -> None:
    rows, entities = _some(ROWS), [str(row) for row in range(ROWS)]
    parts = [f'"rows"{space}:{space}{msgspec.json.encode(rows).decode()}']
    parts += [f'"entities"{space}:{space}{msgspec.json.encode(entities).decode()}']
    for order in (parts, parts[::-1]):
        body = f"{space}{{{space}{f'{space},{space}'.join(order)}{space}}}{space}".encode()
        assert _read(reader, body).entities == entities
