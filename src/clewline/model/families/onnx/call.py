"""How an ONNX file that somebody brought is called: file `call.json` beside the model."""

from __future__ import annotations

from typing import Literal

import msgspec

CALL = "call.json"


class OnnxFileInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input: a scalar field, several as the columns of a matrix, or a tensor of its own."""

    name: str
    kind: Literal["column", "matrix", "tensor"]
    dtype: str  # of NumPy; "object" for strings
    fields: tuple[str, ...]
    flat: bool = False  # a column of shape (n,), not (n, 1)


class OnnxFileCall(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How fields become inputs, and outputs answers."""

    inputs: tuple[OnnxFileInput, ...]
    label: str | None = None  # the output that holds the label of each row
    probabilities: str | None = None  # (n, labels), or one dictionary for each row
    value: str | None = None
    tensor: str | None = None
    rows_per_call: int | None = None  # 1 if the batch is fixed, or bits depend on its size
