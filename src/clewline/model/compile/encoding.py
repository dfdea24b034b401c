"""
How checked rows become the inputs of a compiled model; stated in the ONNX file's metadata.

`numbers`, float64 of shape (n, numeric fields): null is NaN. `codes`, int64 of
shape (text fields used * n,), one field after the other: a level is its place in
`levels`, null is the number of levels, any other text that number plus one. So a
literal "None" or "nan" is a string like any other, never null. `texts`, strings of
shape (n,): one field as it is, or in lower case.
"""

from __future__ import annotations

import msgspec

KEY = "clewline.encoding"
"""Name of the entry in the ONNX file's metadata."""


class TextCodes(msgspec.Struct, frozen=True, omit_defaults=True):
    """The codes of one text field."""

    field: str
    levels: tuple[str, ...]
    refused: tuple[int, ...] = ()  # codes that the estimator itself raises on

    @property
    def null(self) -> int:
        """The code of null."""
        return len(self.levels)

    @property
    def unseen(self) -> int:
        """The code of any text that is not a level."""
        return len(self.levels) + 1


class InputEncoding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The inputs of a compiled model."""

    numbers: tuple[str, ...] = ()  # fields, in the order of the columns; empty: no such input
    codes: tuple[TextCodes, ...] = ()
    rows_per_call: int | None = None  # 1 where bits depend on the size of the batch
    texts: str | None = None  # the field that goes in as the text that it is
    lower: bool = False  # whether it goes in as lower case
