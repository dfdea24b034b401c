"""A form that a model was lowered to."""

from __future__ import annotations

from typing import Any, Protocol

from clewline.model.runtime.onnx import MODEL, OnnxRuntime
from clewline.model.runtime.outputs import Runtime


class NotLowered(Exception):
    """A model, or a part of it, has no such form; the message says which and why."""


class Form(Protocol):
    """A form that a runtime of ours executes, not yet held equal to its original."""

    name: str
    thresholds: list[tuple[int, float]]  # splits as (index of the numeric field, value)

    @property
    def by(self) -> str: ...  # what executes it, for a person

    @property
    def server(self) -> Runtime: ...  # what loads its files

    @property
    def distributions(self) -> tuple[str, ...]: ...  # whose versions count

    def encoding(self, rows_per_call: int | None = None) -> Any: ...

    def files(self, rows_per_call: int | None = None) -> dict[str, bytes]: ...


class OnnxForm:
    """What forms of ONNX have in common."""

    by = "ONNX"
    server = OnnxRuntime()
    distributions = ("onnx", "onnxruntime", "skl2onnx", "scikit-learn", "numpy")

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Write the ONNX file."""
        raise NotImplementedError

    def files(self, rows_per_call: int | None = None) -> dict[str, bytes]:
        """Give the files of a package."""
        return {MODEL: self.model(rows_per_call)}
