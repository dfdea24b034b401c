"""The validator on one JSON row: what passes, what is flagged, what is refused and how."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from clewline.errors import FieldProblem, InvalidInput, MalformedInput
from clewline.signature.accepted_limits import AcceptedFieldLimits, AcceptedLimits
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field import Field, Flag, Output, Signature

GOOD = {
    "job": "nurse",
    "age": 39,
    "note": "said: ok",
    "hours-per week": 38.5,
    "class": True,
    "größe": 3,
    "rows": "2024-05-01T12:00:00Z",
    "": "a",
}


def signature(*fields: Field) -> Signature:
    return Signature(fields=fields, output=Output(name="y", task="binary", labels=("no", "yes")))


def body(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **{names(key): value for key, value in changes.items()}}).encode()


def names(key: str) -> str:
    return {"hours": "hours-per week", "klass": "class", "size": "größe", "when": "rows"}.get(
        key, key
    )


def literal(field: str, text: str) -> bytes:
    """The good row with one value as it is written in JSON."""
    row = {**GOOD, names(field): "HERE"}
    return json.dumps(row).replace('"HERE"', text).encode()


def refused(checker: Checker, data: bytes) -> tuple[FieldProblem, ...]:
    with pytest.raises(InvalidInput) as caught:
        checker.decode(data)
    return caught.value.fields


def test_a_good_row_becomes_the_arrays_of_its_signature(mixed: Checker) -> None:
    checked = mixed.columns(mixed.decode(body()))
    moment = 1714564800e6
    assert checked.columns.numbers.tolist() == [[39.0, 38.5, 1.0, 3.0, moment]]
    assert checked.columns.texts.tolist() == [["nurse", "said: ok", "a"]]
    assert (checked.flags, checked.refused) == ([], [])
    assert checked.columns.numbers.flags.c_contiguous
    assert checked.columns.texts.flags.c_contiguous


def test_null_is_nan_among_numbers_and_none_among_texts(mixed: Checker) -> None:
    data = body(hours=None, note=None, size=None, when=None, **{"": None})
    columns = mixed.columns(mixed.decode(data)).columns
    assert np.isnan(columns.numbers).tolist() == [[False, True, False, True, True]]
    assert columns.texts.tolist() == [["nurse", None, None]]


def test_rows_come_as_an_array_or_as_one_bare_object(mixed: Checker) -> None:
    one = body()
    assert mixed.decode(one) == mixed.decode(b" [" + one + b"]\n")
    assert len(mixed.decode(b"[" + one + b"," + one + b"]")) == 2


def test_no_rows_make_arrays_of_no_rows(mixed: Checker) -> None:
    columns = mixed.columns([]).columns
    assert (columns.numbers.shape, columns.texts.shape) == ((0, 5), (0, 3))


@pytest.mark.parametrize("text", ["39", "39.0", "3.9e1", "390E-1", "39.00"])
def test_an_integer_may_be_written_in_any_way(mixed: Checker, text: str) -> None:
    assert mixed.columns(mixed.decode(literal("age", text))).columns.numbers[0, 0] == 39.0


@pytest.mark.parametrize("text", ["-0.0", "-0", "0", "0e7", "1E-400"])
def test_zero_may_be_written_in_any_way(mixed: Checker, text: str) -> None:
    assert mixed.columns(mixed.decode(literal("hours", text))).columns.numbers[0, 1] == 0.0


@pytest.mark.parametrize(
    ("field", "text", "value", "expected"),
    [
        ("age", '"39"', "39", "integer"),
        ("age", "true", True, "integer"),
        ("age", "39.5", 39.5, "integer"),
        ("age", "null", None, "integer, not null"),
        ("age", "[39]", "array of 1", "integer"),
        ("age", '{"a":1}', "object with 1 fields", "integer"),
        ("age", "NaN", "NaN", "finite integer"),
        ("age", "-Infinity", "-Infinity", "finite integer"),
        ("age", "1e400", "1e400", "finite integer"),
        ("hours", "1e400", "1e400", "finite number or null"),
        ("hours", "-1E999", "-1E999", "finite number or null"),
        ("hours", "9" * 400, "9" * 200 + "…", "finite number or null"),
        (
            "hours",
            "9007199254740993",
            9007199254740993,
            "number or null that a float64 holds without rounding it",
        ),
        (
            "age",
            "-9007199254740993.0",
            -9007199254740993,
            "integer that a float64 holds without rounding it",
        ),
        ("age", "1" + "0" * 30, "1" + "0" * 30, "integer that a float64 holds without rounding it"),
        ("klass", "1", 1, "true or false"),
        ("klass", '"true"', "true", "true or false"),
        ("job", "7", 7, "text"),
        ("job", "null", None, "text, not null"),
        ("note", r'"\ud800!"', "\\ud800!", "text without a lone surrogate"),
        ("when", '"2024-05-01"', "2024-05-01", "RFC 3339"),
        ("when", '"2024-05-01T12:00:00"', "2024-05-01T12:00:00", "RFC 3339"),
        (
            "when",
            '"0001-01-01T00:00:00+01:00"',
            "0001-01-01T00:00:00+01:00",
            "date-time in the years 1 to 9999",
        ),
        (
            "when",
            '"9999-12-31T23:59:59-01:00"',
            "9999-12-31T23:59:59-01:00",
            "date-time in the years 1 to 9999",
        ),
        ("when", "1714564800", 1714564800, "RFC 3339"),
        ("when", '"9999-01-01T00:00:00.000001Z"', "9999-01-01T00:00:00.000001Z", "RFC 3339"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_the_expected_value(
    mixed: Checker, field: str, text: str, value: Any, expected: str
) -> None:
    problems = refused(mixed, literal(field, text))
    assert [(p.row, p.field) for p in problems] == [(0, names(field))]
    assert problems[0].value == value
    assert problems[0].expected.startswith(expected)
    assert msgspec.json.encode(problems)  # an answer can say it


@pytest.mark.parametrize("text", ["9007199254740994", "1e23", "-1e300", "18014398509481984"])
def test_large_numbers_pass_that_a_float64_holds(mixed: Checker, text: str) -> None:
    checked = mixed.columns(mixed.decode(literal("hours", text)))
    assert checked.columns.numbers[0, 1] == float(text)
    assert [flag.flag for _, flag in checked.flags] == ["outside bounds"]


def test_whole_seconds_pass_up_to_the_last_year(mixed: Checker) -> None:
    columns = mixed.columns(mixed.decode(literal("when", '"9999-12-31T23:59:59Z"'))).columns
    assert columns.numbers[0, 4] == 253402300799e6


def test_a_missing_field_is_refused_even_if_null_is_allowed(mixed: Checker) -> None:
    row = {key: value for key, value in GOOD.items() if key not in ("note", "age")}
    problems = refused(mixed, json.dumps(row).encode())
    assert {(p.field, p.value, p.expected) for p in problems} == {
        ("age", None, "integer; the field is missing"),
        ("note", None, "text or null; the field is missing"),
    }


def test_an_unknown_field_is_refused_and_the_nearest_is_named(mixed: Checker) -> None:
    problems = refused(mixed, json.dumps({**GOOD, "hours per week": 3}).encode())
    assert problems == (
        FieldProblem(0, "hours per week", 3, "no such field; did you mean 'hours-per week'?"),
    )


def test_unknown_fields_are_named_in_the_order_of_the_row(mixed: Checker) -> None:
    strangers = [f"stranger {n}" for n in range(20)]
    problems = refused(mixed, json.dumps({**GOOD, **dict.fromkeys(strangers, 0)}).encode())
    assert [p.field for p in problems] == strangers


def test_a_repeated_key_is_refused_however_it_is_written(mixed: Checker) -> None:
    one = body().decode()
    for again in ('"age": 39', r'"\u0061ge" : 40', '"note":"a\\"b", "age":1'):
        fields = {p.field for p in refused(mixed, (one[:-1] + ", " + again + "}").encode())}
        assert "age" in fields


def test_quotation_marks_in_a_text_are_no_repeated_keys(mixed: Checker) -> None:
    data = body(note='"age": "a\\" \\', job='he said "x": "y"')
    assert mixed.columns(mixed.decode(data)).columns.texts[0, 1] == '"age": "a\\" \\'


def test_every_bad_row_and_field_is_named_once(mixed: Checker) -> None:
    bad = {**GOOD, "age": "x", "klass": 1, "job": None}
    rows = [GOOD, bad, 7, GOOD, {}]
    problems = refused(mixed, json.dumps(rows).encode())
    assert [(p.row, p.field) for p in problems[:4]] == [
        (1, "age"),
        (1, "job"),
        (1, "klass"),
        (2, None),
    ]
    assert {p.row for p in problems[4:]} == {4}
    assert len(problems) == 4 + len(GOOD)


def test_the_error_says_how_many_rows_and_the_first_problem(mixed: Checker) -> None:
    with pytest.raises(
        InvalidInput, match=r"1 of 1 rows .*first row 0, field 'age': 'x', expected integer"
    ):
        mixed.decode(body(age="x"))


@pytest.mark.parametrize(
    "data",
    [b"", b"  ", b"{", b"[", b"[]", b" [ ] ", b"[{},]", b"\xff", b'{"a":1} x', b"\xef\xbb\xbf{}"],
)
def test_a_body_that_is_not_json_or_has_no_rows_is_malformed(mixed: Checker, data: bytes) -> None:
    with pytest.raises(MalformedInput):
        mixed.decode(data)


def test_deep_nesting_is_refused(mixed: Checker) -> None:
    for data in (b"[" * 100_000, b'{"age":' * 100_000, literal("age", "[" * 9000 + "]" * 9000)):
        with pytest.raises(InvalidInput):
            mixed.decode(data)


def test_outside_a_proposed_bound_or_level_a_row_is_answered_with_a_flag(mixed: Checker) -> None:
    data = json.dumps([GOOD, {**GOOD, "age": 97, "job": "king"}]).encode()
    checked = mixed.columns(mixed.decode(data))
    assert checked.refused == []
    assert checked.flags == [
        (1, Flag(field="age", value=97, flag="outside bounds", bounds=(13, 94))),
        (1, Flag(field="job", value="king", flag="unseen level", levels=("nurse", "smith"))),
    ]
    assert msgspec.json.encode(checked.flags[0][1]) == (
        b'{"field":"age","value":97,"flag":"outside bounds","bounds":[13,94]}'
    )


def test_a_flag_says_a_date_time_as_one(mixed: Checker) -> None:
    [(_, flag)] = mixed.columns(mixed.decode(body(when="1960-01-01T00:00:00Z"))).flags
    assert (flag.value, flag.bounds[0]) == ("1960-01-01T00:00:00Z", "1970-01-01T00:00:00Z")


ACCEPTED = AcceptedLimits(
    {
        "age": AcceptedFieldLimits(bounds=(17, 90)),
        "job": AcceptedFieldLimits(levels=("smith", "nurse")),
        "rows": AcceptedFieldLimits(bounds=("2024-01-01T00:00:00Z", "2024-12-31T00:00:00Z")),
    }
)


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"age": 91}, "age", "integer in [17, 90]"),
        ({"job": "king"}, "job", "one of 'smith', 'nurse'"),
        (
            {"when": "2025-01-01T00:00:00Z"},
            "rows",
            "RFC 3339 date-time with an offset, such as 2024-05-01T12:00:00Z"
            " in [2024-01-01T00:00:00Z, 2024-12-31T00:00:00Z] or null",
        ),
    ],
)
def test_outside_an_accepted_bound_or_level_a_row_is_refused(
    mixed: Checker, changes: dict[str, Any], field: str, expected: str
) -> None:
    checker = Checker(mixed.signature, ACCEPTED)
    assert checker._decode_fast(body()) == checker.decode(body())
    [problem] = refused(checker, body(**changes))
    assert (problem.field, problem.expected) == (field, expected)


def test_rows_that_were_decoded_before_a_bound_was_accepted_are_refused_as_arrays(
    mixed: Checker,
) -> None:
    rows = mixed.decode(json.dumps([GOOD, {**GOOD, "age": 91, "job": "king"}]).encode())
    checked = Checker(mixed.signature, ACCEPTED).columns(rows)
    assert [(p.row, p.field, p.value) for p in checked.refused] == [
        (1, "age", 91),
        (1, "job", "king"),
    ]


def test_field_names_may_be_anything() -> None:
    strange = ['a"b', "a\\b", "a\nb", "f0", "self", "None", "a-b", "a_b", "a b", "Ａ", "A", "\x7f"]
    checker = Checker(signature(*(Field(name=name, kind="integer") for name in strange)))
    row = {name: place for place, name in enumerate(strange)}
    for ascii_only in (True, False):
        data = json.dumps(row, ensure_ascii=ascii_only).encode()
        assert checker.columns(checker.decode(data)).columns.numbers.tolist() == [
            [float(place) for place in range(len(strange))]
        ]
    assert [p.field for p in refused(checker, json.dumps({**row, "a\nb": "x"}).encode())] == [
        "a\nb"
    ]


TENSORS = signature(
    Field(name="pixels", kind="tensor", dtype="uint8", shape=(2, 3)),
    Field(name="age", kind="integer"),
    Field(name="mask", kind="tensor", dtype="bool", shape=(2,)),
    Field(name="weights", kind="tensor", dtype="float32", shape=(1,)),
)
TENSOR_ROW = {
    "pixels": [[1, 2, 3], [4, 5.0, 255]],
    "age": 3,
    "mask": [True, False],
    "weights": [0.1],
}


def test_tensors_travel_as_arrays_of_their_own() -> None:
    checker = Checker(TENSORS)
    checked = checker.columns(checker.decode(json.dumps([TENSOR_ROW] * 3).encode()))
    pixels, mask = checked.columns.tensors["pixels"], checked.columns.tensors["mask"]
    assert (pixels.shape, pixels.dtype, mask.dtype) == ((3, 2, 3), np.uint8, np.bool_)
    assert pixels[2].tolist() == [[1, 2, 3], [4, 5, 255]]
    assert checked.columns.numbers.tolist() == [[3.0]] * 3
    assert checked.columns.texts.shape == (3, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pixels", [[1, 2, 3], [4, 5, 256]]),
        ("pixels", [[1, 2, 3], [4, 5, 2.5]]),
        ("pixels", [[1, 2, 3], [4, 5]]),
        ("pixels", [[1, 2, 3], [4, 5, True]]),
        ("pixels", [1, 2, 3]),
        ("pixels", None),
        ("mask", [1, 0]),
        ("weights", [1e39]),
        ("weights", [math.inf]),
        ("weights", ["1"]),
    ],
)
def test_a_tensor_of_another_shape_or_type_is_refused(field: str, value: Any) -> None:
    problems = refused(Checker(TENSORS), json.dumps({**TENSOR_ROW, field: value}).encode())
    assert [p.field for p in problems] == [field]


def test_ordinary_rows_need_no_second_pass(mixed: Checker) -> None:
    """Otherwise every request would cost ten times as much, and nothing else would tell."""
    for data in (body(), body(note=None, when=None), body(note="12:30, a\\b"), body(note='a "b"')):
        rows = mixed._decode_fast(data)
        assert rows is not None
        assert not mixed.suspicious(data, rows)


def test_a_refusal_speaks_of_null_as_the_sender_does(mixed: Checker) -> None:
    name = mixed.rules[0].field.name
    problem = FieldProblem(row=0, field=name, value=None, expected="number; the field is missing")
    assert "null, expected" in refused_rows([problem], 1).message


@pytest.mark.parametrize(
    ("kind", "bounds", "texts"),
    [
        ("integer", (0.0, 1558330.0), ("0", "1558330")),
        ("number", (0.6519999999999999, 2.0), ("0.652", "2")),
        ("datetime", (0.0, 1e15), ("1970-01-01T00:00:00Z", "2001-09-09T01:46:40Z")),
        ("number", None, ()),
    ],
)
def test_bounds_are_written_as_a_person_reads_them(kind, bounds, texts) -> None:
    assert Field(name="x", kind=kind, bounds=bounds).bound_texts() == texts
