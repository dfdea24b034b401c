"""What goes into a model and what comes out: fields, their kinds and bounds."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from clewline.signature import timestamps

Kind = Literal["number", "integer", "boolean", "category", "text", "datetime", "tensor"]
Task = Literal["binary", "multiclass", "regression", "tensor", "transform"]

NUMERIC: frozenset[Kind] = frozenset({"number", "integer", "boolean", "datetime"})
"""Kinds that reach the model as float64; the others, except tensors, reach it as text."""


class Field(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One input. Bounds and levels are proposals until a person accepts them."""

    name: str
    kind: Kind
    nullable: bool = False
    unit: str | None = None
    bounds: tuple[float, float] | None = None  # observed and widened, both ends included
    levels: tuple[str, ...] | None = None  # of a category, sorted
    dtype: str | None = None  # of a tensor
    shape: tuple[int, ...] | None = None  # of a tensor, without the row axis

    def bound_texts(self) -> tuple[str, ...]:
        """
        Write the bounds as a person reads them; a field without bounds has no texts.

        >>> Field(name="age", kind="integer", bounds=(0.0, 1558330.0)).bound_texts()
        ('0', '1558330')
        """
        if self.kind == "datetime":
            return tuple(timestamps.format_microseconds(bound) for bound in self.bounds or ())
        return tuple(f"{bound:.6g}" if bound % 1 else f"{bound:.0f}" for bound in self.bounds or ())


class Flag(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A value that was answered, although it lies outside proposed bounds or levels."""

    field: str
    value: Any
    flag: Literal["outside bounds", "unseen level"]
    bounds: tuple[Any, Any] | None = None  # of the field's kind: integers, numbers, date-times
    levels: tuple[str, ...] | None = None


class Output(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a model answers; for fitted preprocessing (task "transform"), the fields it returns."""

    name: str  # the target column; empty where the task is "transform"
    task: Task
    labels: tuple[str | int | float | bool, ...] | None = None  # in the order of the probabilities
    has_probabilities: bool = True  # whether each label comes with one, where there are labels
    unit: str | None = None
    bounds: tuple[float, float] | None = None  # of a regression target, observed
    fields: tuple[Field, ...] | None = None  # that a transform returns, in order
    dtype: str | None = None  # of a tensor
    shape: tuple[int, ...] | None = None  # of a tensor, without the row axis


class Signature(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The fields that go in, in order, and the output."""

    fields: tuple[Field, ...]
    output: Output

    @property
    def numeric(self) -> tuple[Field, ...]:
        """Fields that reach the model as columns of one float64 matrix, in order."""
        return tuple(field for field in self.fields if field.kind in NUMERIC)

    @property
    def textual(self) -> tuple[Field, ...]:
        """Fields that reach the model as columns of one text matrix, in order."""
        return tuple(field for field in self.fields if field.kind in ("category", "text"))

    @property
    def tensors(self) -> tuple[Field, ...]:
        """Fields that each reach the model as an array."""
        return tuple(field for field in self.fields if field.kind == "tensor")

    @property
    def transformed(self) -> Signature:
        """
        The columns that a transform returns, as a signature.

        Its `numeric` and `textual` say which column of the arrays is which field.
        """
        return Signature(fields=self.output.fields or (), output=self.output)


def label_name(label: Any) -> str:
    """Return a label as its key among the probabilities: itself, or its JSON if it is no string."""
    return label if isinstance(label, str) else msgspec.json.encode(label).decode()
