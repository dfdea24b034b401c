"""The background sample: training rows as a client would send them."""

from __future__ import annotations

import math
from typing import Any

from clewline.model.profile import sample_rows
from clewline.model.runtime.outputs import take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature
from clewline.signature.field_rules import value_in_kind

ROWS = 256


def background_rows(signature: Signature, train: Columns, *, seed: int = 0) -> list[dict[str, Any]]:
    """Draw up to 256 training rows, each a JSON object with every field of the signature."""
    drawn = take_rows(train, sample_rows(train, ROWS, seed))
    columns: dict[str, list[Any]] = {}
    for field, values in zip(signature.numeric, drawn.numbers.T.tolist(), strict=True):
        columns[field.name] = [
            None if math.isnan(value) else value_in_kind(field, value) for value in values
        ]
    for field, texts in zip(signature.textual, drawn.texts.T.tolist(), strict=True):
        columns[field.name] = texts
    for field in signature.tensors:
        columns[field.name] = drawn.tensors[field.name].tolist()
    names = [field.name for field in signature.fields]
    return [{name: columns[name][row] for name in names} for row in range(len(drawn))]
