"""Background rows for what stands above several nodes, or takes other fields than what is below."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from clewline.serve.graph.builder import Node
from clewline.signature.field import Field

MADE_ROWS = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def joined_background(nodes: list[Node], fields: tuple[Field, ...]) -> bytes:
    """Give rows with the joined fields of all nodes, each value from the first that takes it."""
    first = nodes[0]
    if first.signature.fields == fields:
        return first.background
    samples = [rows_of(node.background) for node in nodes]
    needed = {field.name for field in fields if not field.nullable}
    rows = [
        {name: value for row in reversed(each) for name, value in row.items()}
        for each in zip(*samples, strict=False)
    ]
    return msgspec.json.encode(
        [row for row in rows if not any(bytes(row[name]) == b"null" for name in needed)]
    )


def background_of(fields: tuple[Field, ...], below: Node) -> bytes:
    """
    Give rows of declared fields.

    A field that stands below too has the values from there; of others nothing is
    known but their declaration: they are made of its levels and bounds.
    """
    known = {field.name: field.kind for field in below.signature.fields}
    taken = {field.name for field in fields if known.get(field.name) == field.kind}
    if len(taken) == len(known) == len(fields):
        return below.background
    rows = rows_of(below.background) if taken else [{} for _ in range(MADE_ROWS)]
    made = [
        {
            field.name: msgspec.Raw(row[field.name]) if field.name in taken else _made(field, place)
            for field in fields
        }
        for place, row in enumerate(rows)
    ]
    return msgspec.json.encode(made)


def rows_of(background: bytes) -> list[dict[str, msgspec.Raw]]:
    """Read background rows; the values stay JSON."""
    return msgspec.json.decode(background, type=list[dict[str, msgspec.Raw]])


def _made(field: Field, place: int) -> Any:
    """A value for a field, another in each of a few rows."""
    share = (place % MADE_ROWS) / (MADE_ROWS - 1)
    if field.kind == "boolean":
        return place % 2 == 0
    if field.kind in ("category", "text"):
        levels = field.levels or ("a", "b")
        return levels[place % len(levels)]
    if field.kind == "tensor":
        return _filled(field.shape or (), field.dtype == "bool")
    low, high = field.bounds or (0.0, 1.0)
    value = low + (high - low) * share
    if field.kind == "number":
        return value
    if field.kind == "integer":
        return round(value)
    return (_EPOCH + timedelta(microseconds=round(value))).isoformat()


def _filled(shape: tuple[int, ...], is_bool: bool) -> Any:
    if not shape:
        return False if is_bool else 0
    return [_filled(shape[1:], is_bool) for _ in range(shape[0])]
