"""
A column on its way from a raw field to the final estimator.

A number carries the arithmetic that its transformers do, in the same order and in
float64, so that the bits are theirs. A text carries a table: what each code of its
field (levels, null, unseen) has become so far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.form import NotLowered

OpKind = Literal["sub", "add", "mul", "div", "fill", "clip", "float32", "isnan", "unzero", "lookup"]

MONOTONE: frozenset[OpKind] = frozenset({"sub", "add", "mul", "div", "fill", "clip", "float32"})
"""Operations that never turn an order round, their constants positive where they scale."""


class Lookup(NamedTuple):
    """A table over single numbers."""

    keys: tuple[float, ...]
    values: tuple[float, ...]
    unseen: float
    null: float


class Op(NamedTuple):
    """One operation on a number, and its constant."""

    kind: OpKind
    value: float | tuple[float, float] | Lookup | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A column computed from one numeric field."""

    field: int  # among the signature's numeric fields
    ops: tuple[Op, ...] = ()
    single: bool = False  # trained as float32, whose arithmetic is not ours

    def then(self, *ops: Op) -> Number:
        """Append operations."""
        if self.single and any(op.kind != "float32" for op in ops):
            raise NotLowered("it does arithmetic on a float32 column; train on float64")
        return replace(self, ops=self.ops + ops)

    @property
    def monotone(self) -> bool:
        """Whether a larger raw value never gives a smaller one."""
        return all(op.kind in MONOTONE and _rising(op) for op in self.ops)

    def apply(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the column from raw values."""
        with np.errstate(all="ignore"):
            for op in self.ops:
                raw = _apply(op, raw)
        return raw


@dataclass(frozen=True, slots=True)
class Code:
    """A column that is a table over the codes of one text field."""

    field: int  # among the signature's textual fields
    values: NDArray[Any]  # one entry a code: objects first, float64 once encoded
    refused: frozenset[int] = frozenset()  # codes that the estimator itself raises on

    @property
    def encoded(self) -> bool:
        """Whether the entries are numbers."""
        return self.values.dtype == np.float64


@dataclass(frozen=True, slots=True)
class Opaque:
    """A field of a kind that has no lowering; harmless while no one reads it."""

    reason: str


Track: TypeAlias = Number | Code | Opaque


def _rising(op: Op) -> bool:
    return op.kind not in ("mul", "div") or (isinstance(op.value, float) and op.value > 0)


def _apply(op: Op, x: NDArray[np.float64]) -> NDArray[np.float64]:
    value: Any = op.value
    out: NDArray[np.float64]
    match op.kind:
        case "sub":
            out = x - value
        case "add":
            out = x + value
        case "mul":
            out = x * value
        case "div":
            out = x / value
        case "fill":
            out = np.where(np.isnan(x), value, x)
        case "clip":
            out = np.clip(x, *value)
        case "float32":
            out = x.astype(np.float32).astype(np.float64)
        case "isnan":
            out = np.isnan(x).astype(np.float64)
        case "unzero":
            out = np.where(x == 0, np.nan, x)
        case "lookup":
            out = _look_up(value, x)
    return out


def _look_up(table: Lookup, x: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.where(np.isnan(x), table.null, table.unseen)
    for key, value in zip(table.keys, table.values, strict=True):
        out[x == key] = value
    return out
