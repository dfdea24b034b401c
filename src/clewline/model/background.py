"""The background sample: training rows as a client would send them."""

from __future__ import annotations

import math
from typing import Any

from clewline.model.profile import sample_rows, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature
from clewline.signature.field_rules import value_in_kind

ROWS = 256


def rows(signature: Signature, train: Columns, *, seed: int = 0) -> list[dict[str, Any]]:
    """
    Draw up to 256 training rows, each a JSON object with every field of the signature.

    Args:
        signature: Of the model.
        train: The training table.
        seed: Of the draw.
    """
    drawn = take_rows(train, sample_rows(train, ROWS, seed))
    columns: dict[str, list[Any]] = {}
    for place, field in enumerate(signature.numeric):
        values = drawn.numbers[:, place].tolist()
        columns[field.name] = [
            None if math.isnan(value) else value_in_kind(field, value) for value in values
        ]
    for place, field in enumerate(signature.textual):
        columns[field.name] = drawn.texts[:, place].tolist()
    for field in signature.tensors:
        columns[field.name] = drawn.tensors[field.name].tolist()
    names = [field.name for field in signature.fields]
    return [{name: columns[name][row] for name in names} for row in range(len(drawn))]
