"""
Rows of JSON without the envelope of a request, and columns of JSON.

    json-rows       [{"age": 39, …}, …]: a piece of a streamed request, as the log keeps it; the
                    detail is a JSON array with the entity of each row, or empty
    json-columns    {"columns": {"age": [39, …], …}, "entities": […]}
"""

from __future__ import annotations

from typing import Any

import msgspec

from clewline.errors import MalformedInput
from clewline.serve.formats.body_format import RequestRows, require_few_values, too_many_rows
from clewline.serve.formats.columns import (
    first_repeated,
    require_count,
    rows_from_columns,
    with_entities,
)
from clewline.signature.check import Checker
from clewline.signature.field_rules import UnrepresentableNumber, is_encodable, printable_text
from clewline.signature.json_rows import JsonObject, parse_exactly

_SHAPE = 'Send {"columns": {"FIELD": […], …}}, each as long as the others.'


class JsonRowsFormat:
    """Reads `[{…}, …]`."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of an array."""
        if not body.lstrip(b" \t\r\n").startswith(b"["):
            raise MalformedInput("The body is not a JSON array.", "Send [{…}, …].")
        rows = checker.decode(body)
        if len(rows) > max_rows:
            raise too_many_rows(max_rows)
        return with_entities(rows, msgspec.json.decode(detail, type=list[str]) if detail else None)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Return each row as a JSON object."""
        return [bytes(row) for row in msgspec.json.decode(body, type=list[msgspec.Raw])]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    columns: dict[str, list[Any]]
    entities: list[str] | None = None


class _RawBody(msgspec.Struct):
    columns: dict[str, list[msgspec.Raw]]


_decode = msgspec.json.Decoder(_Body).decode


class JsonColumnsFormat:
    """Reads columns of JSON."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a body."""
        require_few_values(body)
        found = _decode_quickly(body) or _decode_exactly(body)
        if not found.columns:
            raise MalformedInput("There are no columns.", _SHAPE)
        first, values = next(iter(found.columns.items()))
        for name, other in found.columns.items():
            if len(other) != len(values):
                raise MalformedInput(
                    f"The column {printable_text(name)!r} has {len(other)} values, "
                    f"and {printable_text(first)!r} has {len(values)}.",
                    _SHAPE,
                )
        require_count(len(values), max_rows)
        return rows_from_columns(found.columns, len(values), checker, max_rows, found.entities)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Return each row as a JSON object."""
        columns = msgspec.json.decode(body, type=_RawBody).columns
        return [
            msgspec.json.encode(dict(zip(columns, row, strict=True)))
            for row in zip(*columns.values(), strict=True)
        ]


ROWS_FORMAT = JsonRowsFormat()
COLUMNS_FORMAT = JsonColumnsFormat()


def _decode_quickly(body: bytes) -> _Body | None:
    """Read a body in one pass; return None if that refuses it or cannot be sure."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # msgspec keeps the last of repeated keys without a word. Every key and every string has
    # two quotation marks, so another number of them shows a repetition (or an escaped one).
    strings = 1 + len(found.columns) + (found.entities is not None) + len(found.entities or ())
    for values in found.columns.values():
        types = set(map(type, values))
        # A large float, or an element of a tensor, may be an integer that was rounded.
        if list in types or (
            float in types and any(type(v) is float and abs(v) >= 2.0**53 for v in values)
        ):
            return None
        if str in types:
            strings += len(values) if len(types) == 1 else sum(type(v) is str for v in values)
    return found if body.count(b'"') == 2 * strings else None


def _decode_exactly(body: bytes) -> _Body:
    """
    Read a body key by key.

    Raises:
        MalformedInput: It does not hold columns; says what is wrong with it.
    """
    envelope = _without_repetition(parse_exactly(body), "The body")
    if not envelope.keys() <= {"columns", "entities"} or "columns" not in envelope:
        named = ", ".join(printable_text(repr(key)) for key in list(envelope)[:10])
        raise MalformedInput(
            f"The body has the keys {named}; it may have columns and entities.", _SHAPE
        )
    columns = _without_repetition(envelope["columns"], "columns")
    for name, values in columns.items():
        if not isinstance(values, list):
            raise MalformedInput(f"The column {printable_text(name)!r} is not a list.", _SHAPE)
    entities = envelope.get("entities")
    if entities is not None and not (isinstance(entities, list) and all(map(is_text, entities))):
        raise MalformedInput(
            "entities is not a list of strings.", "Send one string per row, or leave it out."
        )
    return _Body(columns, entities)


def is_text(value: Any) -> bool:
    """Return whether a parsed value is a string that can be logged, without lone surrogates."""
    return (
        isinstance(value, str)
        and not isinstance(value, UnrepresentableNumber)
        and is_encodable(value)
    )


def _without_repetition(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, JsonObject):
        raise MalformedInput(f"{what} is not an object.", _SHAPE)
    if (twice := first_repeated(key for key, _ in value)) is not None:
        raise MalformedInput(f"{what} has the key {printable_text(twice)!r} twice.", _SHAPE)
    return dict(value)
