"""Candidate forms: what a model was converted to, before it is verified."""

from __future__ import annotations

from typing import Any, Protocol

MODEL = "model.onnx"
"""The file of a package that holds an ONNX model."""

FEATURES = "features"
"""The one output of compiled preprocessing: float64 of shape (n, fields of the output)."""


class NotConvertible(Exception):
    """A model, or a part of it, does not have this form; the message says which and why."""


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
