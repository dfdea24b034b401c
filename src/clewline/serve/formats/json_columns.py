"""`{"columns": {"age": [39, …], …}, "entities": […]}`: rows as columns of JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from clewline.errors import MalformedInput
from clewline.serve.formats import RequestRows
from clewline.serve.formats.columns import require_count, rows_of, with_entities
from clewline.signature import json_rows
from clewline.signature.check import Checker
from clewline.signature.field_rules import UnrepresentableNumber, is_encodable, printable_text
from clewline.signature.json_rows import JsonObject

_SHAPE = 'Send {"columns": {"FIELD": […], …}}, each as long as the others.'


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    columns: dict[str, list[Any]]
    entities: list[str] | None = None


class _RawBody(msgspec.Struct):
    columns: dict[str, list[msgspec.Raw]]


_decode = msgspec.json.Decoder(_Body).decode


class JsonColumns:
    """Reads columns of JSON."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a body."""
        found = _quick(body)
        if found is None:
            found = _exact(body)
        count = _count(found.columns)
        require_count(count, max_rows)
        return with_entities(rows_of(found.columns, count, checker, max_rows), found.entities)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object."""
        columns = msgspec.json.decode(body, type=_RawBody).columns
        return [
            msgspec.json.encode(dict(zip(columns, row, strict=True)))
            for row in zip(*columns.values(), strict=True)
        ]


FORMAT = JsonColumns()


def _quick(body: bytes) -> _Body | None:
    """Read a body in one pass; None when that refuses or cannot be sure."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # msgspec keeps the last of repeated keys without a word. Every key and every text has
    # two quotation marks, so another number of them shows a repetition (or an escaped one).
    texts = len(found.entities or ())
    for values in found.columns.values():
        types = set(map(type, values))
        if _has_far(values, types):
            return None
        if str in types:
            texts += len(values) if len(types) == 1 else sum(type(v) is str for v in values)
    keys = 1 + len(found.columns) + (found.entities is not None)
    return found if body.count(b'"') == 2 * (texts + keys) else None


def _has_far(values: list[Any], types: set[type]) -> bool:
    """Tell of numbers that may be integers which were rounded while they were read."""
    if list in types:
        return True  # an element of a tensor may be one
    if float not in types:
        return False
    return any(type(value) is float and abs(value) >= 2.0**53 for value in values)


def _exact(body: bytes) -> _Body:
    """
    Read a body key by key.

    Raises:
        MalformedInput: It is not what holds columns; says what is wrong with it.
    """
    pairs = json_rows.parse_exactly(body)
    envelope = _once(pairs, "The body")
    if not envelope.keys() <= {"columns", "entities"} or "columns" not in envelope:
        named = ", ".join(printable_text(repr(key)) for key in list(envelope)[:10])
        raise MalformedInput(
            f"The body has the keys {named}; it may have columns and entities.", _SHAPE
        )
    columns = _once(envelope["columns"], "columns")
    for name, values in columns.items():
        if not isinstance(values, list):
            raise MalformedInput(f"The column {printable_text(name)!r} is no list.", _SHAPE)
    entities = envelope.get("entities")
    if entities is not None and not _are_texts(entities):
        raise MalformedInput(
            "entities is not a list of texts.", "Send one text a row, or leave it out."
        )
    return _Body(columns, entities)


def _once(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, JsonObject):
        raise MalformedInput(f"{what} is no object.", _SHAPE)
    plain = dict(value)
    if len(plain) < len(value):
        keys = [key for key, _ in value]
        seen: set[str] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedInput(f"{what} has the key {printable_text(twice)!r} twice.", _SHAPE)
    return plain


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, str)
        and not isinstance(value, UnrepresentableNumber)
        and is_encodable(value)
        for value in values
    )


def _count(columns: dict[str, list[Any]]) -> int:
    """
    Count the rows, in which all columns agree.

    Raises:
        MalformedInput: They do not.
    """
    if not columns:
        raise MalformedInput("There are no columns.", _SHAPE)
    first, values = next(iter(columns.items()))
    for name, other in columns.items():
        if len(other) != len(values):
            raise MalformedInput(
                f"The column {printable_text(name)!r} has {len(other)} values, "
                f"and {printable_text(first)!r} has {len(values)}.",
                _SHAPE,
            )
    return len(values)
