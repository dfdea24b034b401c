"""A form that a model was lowered to."""

from __future__ import annotations

from typing import Protocol

from fairlead.model.runtime.encoding import Encoding


class NotLowered(Exception):
    """A model, or a part of it, has no such form; the message says which and why."""


class Form(Protocol):
    """An ONNX form of a model, not yet held equal."""

    name: str
    thresholds: list[tuple[int, float]]  # splits as (index of the numeric field, value)

    def encoding(self, rows_per_call: int | None = None) -> Encoding: ...

    def model(self, rows_per_call: int | None = None) -> bytes: ...
