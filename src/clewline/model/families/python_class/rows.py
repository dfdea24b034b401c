"""Checked rows as a Python model takes them: a frame of its library, or dicts."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from clewline.flow.code.frame_annotation import Frame
from clewline.model.runtime.frames import TableLayout, frame_of
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def model_input(columns: Columns, signature: Signature, frame: Frame, layout: TableLayout) -> Any:
    """Make what `predict` takes of checked rows."""
    if frame == "rows":
        return dicts_of(columns, signature)
    return frame_of(columns, signature, layout)


def dicts_of(columns: Columns, signature: Signature) -> list[dict[str, Any]]:
    """
    Make a dict of every row, in the order of the signature's fields.

    Integers are ints, booleans bools, datetimes of UTC, tensors arrays; null is None.
    """
    values: dict[str, list[Any]] = {}
    for place, field in enumerate(signature.numeric):
        column = columns.numbers[:, place].tolist()
        values[field.name] = [
            None if math.isnan(cell) else _quantity(field, cell) for cell in column
        ]
    for place, field in enumerate(signature.textual):
        values[field.name] = columns.texts[:, place].tolist()
    for field in signature.tensors:
        values[field.name] = list(columns.tensors[field.name])
    names = [field.name for field in signature.fields]
    cells = zip(*(values[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in cells]


def _quantity(field: Field, value: float) -> Any:
    if field.kind == "datetime":
        return _EPOCH + dt.timedelta(microseconds=int(value))
    if field.kind == "boolean":
        return bool(value)
    if field.kind == "integer" and value.is_integer():
        return int(value)
    return value
