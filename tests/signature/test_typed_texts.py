"""Texts of a form become a JSON row; what is no value of its field is left to be refused."""

from __future__ import annotations

import doctest

import msgspec
import pytest

from clewline.signature import typed_texts
from clewline.signature.field import Field, Kind
from clewline.signature.typed_texts import json_of_texts


@pytest.mark.parametrize(
    ("kind", "nullable", "text", "value"),
    [
        ("number", False, " 1e3 ", 1000.0),
        ("number", False, "9007199254740993", 9007199254740993),
        ("number", False, "NaN", "NaN"),
        ("number", False, "1,5", "1,5"),
        ("number", False, "true", "true"),
        ("number", False, '{"a":1}', '{"a":1}'),
        ("number", True, "  ", None),
        ("integer", False, "39.0", 39.0),
        ("boolean", False, "True", True),
        ("boolean", False, "1", "1"),
        ("category", True, "", None),
        ("category", False, "", ""),
        ("text", False, " <b>\n😀 ", " <b>\n😀 "),
        ("datetime", False, "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"),
    ],
)
def test_each_kind_is_written_as_the_check_of_rows_reads_it(
    kind: Kind, nullable: bool, text: str, value: object
) -> None:
    field = Field(name='a "b"', kind=kind, nullable=nullable)
    found = json_of_texts((field, Field(name="left out", kind="number")), {field.name: text})
    assert msgspec.json.decode(found) == {field.name: value}


def test_the_example_in_the_documentation_holds() -> None:
    assert doctest.testmod(typed_texts).failed == 0
