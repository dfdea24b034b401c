"""
How checked rows become the inputs of a compiled model; stated in the ONNX file's metadata.

`numbers`, float64 of shape (n, numeric fields): null is NaN. `codes`, int64 of
shape (text fields used * n,), one field after the other: a level is its place in
`levels`, null is the number of levels, any other text that number plus one. So a
literal "None" or "nan" is a text like any other, never null. `texts`, strings of
shape (n,): one field as it is, or in lower case.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem, InvalidInput
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

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


class InputEncoder:
    """Turns checked rows into the inputs of a compiled model. Any thread may call it."""

    def __init__(self, encoding: InputEncoding, signature: Signature) -> None:
        names = [field.name for field in signature.textual]
        self._texts = encoding.codes
        self._columns = [names.index(text.field) for text in encoding.codes]
        self._lookups = [_Codes(text).__getitem__ for text in encoding.codes]
        self._closed = any(text.refused for text in encoding.codes)
        self._numbers = bool(encoding.numbers)
        self._text = None if encoding.texts is None else names.index(encoding.texts)
        self._lower = encoding.lower

    def inputs(self, columns: Columns) -> dict[str, NDArray[Any]]:
        """
        Give the inputs by name.

        Raises:
            InvalidInput: A level or null that the estimator itself refuses; names each.
        """
        inputs: dict[str, NDArray[Any]] = {}
        if self._numbers:
            inputs["numbers"] = columns.numbers
        if self._lookups:
            inputs["codes"] = self._codes(columns)
        if self._text is not None:
            texts = columns.texts[:, self._text]
            lowered = [text.lower() for text in texts.tolist()] if self._lower else texts
            inputs["texts"] = np.array(lowered, dtype=object)
        return inputs

    def _codes(self, columns: Columns) -> NDArray[np.int64]:
        texts = columns.texts.T.tolist()
        found: list[int] = []
        for column, lookup in zip(self._columns, self._lookups, strict=True):
            found += map(lookup, texts[column])
        codes = np.array(found, dtype=np.int64)
        if self._closed:
            self._refuse(codes.reshape(len(self._lookups), -1), texts)
        return codes

    def _refuse(self, codes: NDArray[np.int64], texts: list[list[str | None]]) -> None:
        problems = []
        for row, column, text in zip(codes, self._columns, self._texts, strict=True):
            for place in np.flatnonzero(np.isin(row, text.refused)).tolist():
                known = ", ".join(map(repr, text.levels[:10]))
                more = ", …" if len(text.levels) > 10 else ""
                expected = f"one of {known}{more}: the model's encoder refuses others"
                problems.append(FieldProblem(place, text.field, texts[column][place], expected))
        if problems:
            raise InvalidInput(
                f"{len(problems)} values are none that the model's own encoder takes.",
                'Send known levels, or train with handle_unknown="ignore".',
                tuple(problems),
            )


class _Codes(dict[str | None, int]):
    """Text or None to code; half the time of `get` with a default for each."""

    def __init__(self, text: TextCodes) -> None:
        super().__init__({level: code for code, level in enumerate(text.levels)})
        self[None] = text.null
        self._unseen = text.unseen

    def __missing__(self, text: str | None) -> int:
        return self._unseen
