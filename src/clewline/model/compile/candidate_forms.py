"""Candidate forms: what a model was converted to, before it is verified, and how it is fed."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

MODEL = "model.onnx"
"""The file of a package that holds an ONNX model."""

FEATURES = "features"
"""The one output of compiled preprocessing: float64 of shape (n, fields of the output)."""


KEY = "clewline.encoding"
"""Name of the entry in the ONNX file's metadata."""


class NotConvertible(Exception):
    """A model, or a part of it, does not have this form; the message says which and why."""


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
    """
    How checked rows become the inputs of a compiled model; stated in the ONNX file's metadata.

    `numbers`, float64 of shape (n, numeric fields): null is NaN. `codes`, int64 of
    shape (text fields used * n,), one field after the other: a level is its place in
    `levels`, null is the number of levels, any other text that number plus one. So a
    literal "None" or "nan" is a string like any other, never null.
    """

    numbers: tuple[str, ...] = ()  # fields, in the order of the columns; empty: no such input
    codes: tuple[TextCodes, ...] = ()
    rows_per_call: int | None = None  # 1 where bits depend on the size of the batch


class CandidateForm(Protocol):
    """A converted model, not yet verified to be equal to its original."""

    name: str
    runtime: str  # the family that loads its files
    executed_by: str  # as shown to people
    distributions: tuple[str, ...]  # whose versions are recorded
    thresholds: list[tuple[int, float]]  # splits as (index of the numeric field, value)

    def encoding(self, rows_per_call: int | None = None) -> Any: ...

    def files(self, rows_per_call: int | None = None) -> dict[str, bytes]: ...


class OnnxForm:
    """The base of forms in ONNX."""

    runtime = "onnx"
    executed_by = "ONNX"
    distributions: tuple[str, ...] = ("onnx", "onnxruntime", "skl2onnx", "scikit-learn", "numpy")
    thresholds: list[tuple[int, float]]

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Return the ONNX file."""
        raise NotImplementedError

    def files(self, rows_per_call: int | None = None) -> dict[str, bytes]:
        """Return the files of a package."""
        return {MODEL: self.model(rows_per_call)}
