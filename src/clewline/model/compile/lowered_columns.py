"""
A column on its way from a raw field to the final estimator.

A number carries the arithmetic that its transformers do, in the same order and in
float64, so that the bits are theirs. A text carries a table: what each code of its
field (levels, null, unseen) has become so far.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.runtime.frames import TableLayout
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

UNSEEN = "\x00never seen"
MAX_LEVELS = 10_000

OpName = Literal["sub", "add", "mul", "div", "fill", "clip", "float32", "isnan", "unzero", "lookup"]

MONOTONE: frozenset[OpName] = frozenset({"sub", "add", "mul", "div", "fill", "clip", "float32"})
"""Operations that keep the order of values, provided that a scaling constant is positive."""


class LookupTable(NamedTuple):
    """A table over single numbers."""

    keys: tuple[float, ...]
    values: tuple[float, ...]
    unseen: float
    null: float


class ColumnOp(NamedTuple):
    """One operation on a number, and its constant."""

    kind: OpName
    value: float | tuple[float, float] | LookupTable | None = None


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A column computed from one numeric field."""

    field: int  # among the signature's numeric fields
    ops: tuple[ColumnOp, ...] = ()
    single: bool = False  # trained as float32, whose arithmetic is not ours

    def then(self, *ops: ColumnOp) -> NumberColumn:
        """Append operations."""
        if self.single and any(op.kind != "float32" for op in ops):
            raise NotConvertible("it does arithmetic on a float32 column; train on float64")
        return replace(self, ops=self.ops + ops)

    @property
    def monotone(self) -> bool:
        """Whether a larger raw value never gives a smaller one."""
        scales = [op.value for op in self.ops if op.kind in ("mul", "div")]
        is_rising = all(isinstance(value, float) and value > 0 for value in scales)
        return is_rising and all(op.kind in MONOTONE for op in self.ops)

    def apply(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the column from raw values."""
        with np.errstate(all="ignore"):
            for op in self.ops:
                raw = _apply(op, raw)
        return raw


@dataclass(frozen=True, slots=True)
class CodeColumn:
    """A column that is a table over the codes of one text field."""

    field: int  # among the signature's textual fields
    values: NDArray[Any]  # one entry a code: objects first, float64 once encoded
    refused: frozenset[int] = frozenset()  # codes that the estimator itself raises on

    @property
    def encoded(self) -> bool:
        """Whether the entries are numbers."""
        return self.values.dtype == np.float64


@dataclass(frozen=True, slots=True)
class UnsupportedColumn:
    """A field of a kind that cannot be converted; harmless while no one reads it."""

    reason: str


LoweredColumn: TypeAlias = NumberColumn | CodeColumn | UnsupportedColumn


def _apply(op: ColumnOp, x: NDArray[np.float64]) -> NDArray[np.float64]:
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
            out = np.where(np.isnan(x), value.null, value.unseen)
            for key, found in zip(value.keys, value.values, strict=True):
                out[x == key] = found
    return out


def raw_columns(
    signature: Signature,
    layout: TableLayout,
    train: Columns,
    *,
    names: Sequence[str] | None,
    known_texts: Set[str] = frozenset(),
) -> tuple[list[LoweredColumn], list[tuple[str, ...]]]:
    """
    Return the raw fields as columns, and the levels of each text field that a model knows.

    Args:
        signature: Of the model.
        layout: Column types of the table that the model was fitted on.
        train: That table; it gives levels, as the signature and its column types do.
        names: Columns in the order in which the model was fitted; None: as in the signature.
        known_texts: Strings that the model itself knows, of any field.

    Raises:
        NotConvertible: A text field has too many levels, or the model reads what is no field.
    """
    seen: list[set[str]] = [
        {text for text in train.texts[:, index].tolist() if text is not None}
        | set(field.levels or ())
        | set(layout.columns[field.name].levels or ())  # declared, though no row has them
        for index, field in enumerate(signature.textual)
    ]
    extra = known_texts - set().union(*seen)
    levels = [tuple(sorted(texts | extra)) for texts in seen]
    for texts, field in zip(levels, signature.textual, strict=True):
        if len(texts) > MAX_LEVELS:
            raise NotConvertible(
                f"the field {field.name!r} has more than {MAX_LEVELS:,} different texts"
            )
    numeric = {field.name: index for index, field in enumerate(signature.numeric)}
    textual = {field.name: index for index, field in enumerate(signature.textual)}
    columns: dict[str, LoweredColumn] = {}
    for field in signature.fields:
        name = field.name
        if name in textual:
            values = [*levels[textual[name]], layout.null_of(name), UNSEEN]
            columns[name] = CodeColumn(textual[name], object_array(values))
        elif name in numeric and field.kind != "datetime":
            single = layout.columns[name].dtype.lower() == "float32"
            ops = (ColumnOp("float32"),) if single else ()
            columns[name] = NumberColumn(numeric[name], ops, single)
        else:
            columns[name] = UnsupportedColumn(
                f"the {field.kind} field {name!r} cannot be converted"
            )
    chosen = list(columns) if names is None else [str(name) for name in names]
    if unknown := [name for name in chosen if name not in columns]:
        raise NotConvertible(f"it reads the columns {unknown}, which are not fields")
    return [columns[name] for name in chosen], levels


def object_array(values: Sequence[Any]) -> NDArray[Any]:
    """Return values as a one-dimensional array of objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


_SIGN = np.uint64(1 << 63)


def raw_thresholds(column: NumberColumn, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Return for each threshold on a column the largest raw value that goes left there.

    A scaler, an imputer and the rounding to float32 keep the order, so there is one such
    float64. Bisection over all float64 finds it by the arithmetic of the transformers
    themselves: the decision is the same for every raw value there is.

    Args:
        column: A monotone column.
        thresholds: Values on the transformed scale, shape (n,).

    Returns:
        Raw values, shape (n,): -inf where no value is at most the threshold, inf where all are.
    """
    low, high = _rank(np.full(len(thresholds), -np.inf)), _rank(np.full(len(thresholds), np.inf))
    while (high - low).max(initial=np.uint64(0)) > 1:
        middle = low + (high - low) // np.uint64(2)
        left = column.apply(_unrank(middle)) <= thresholds
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    all_left = column.apply(_unrank(high)) <= thresholds
    return _unrank(np.where(all_left, high, low))


def _rank(x: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Place of a float64 among all, from the most negative."""
    bits = x.view(np.uint64)
    return np.where(bits & _SIGN != 0, ~bits, bits | _SIGN)


def _unrank(rank: NDArray[np.uint64]) -> NDArray[np.float64]:
    bits = np.where(rank & _SIGN != 0, rank & ~_SIGN, ~rank)
    return bits.view(np.float64)
