"""A signature from a training table: kinds, nullability, and bounds as proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clewline.errors import InvalidInput
from clewline.signature import dataframes, timestamps
from clewline.signature.field import Field, Kind, Output, Signature, Task
from clewline.signature.field_rules import is_encodable

if TYPE_CHECKING:
    import narwhals as nw

Label = str | int | float | bool

WIDENED = 0.05
"""Share of the observed range that a proposed bound allows on each side."""
MOST_LEVELS = 256
"""A text column with more distinct values is text, not a category."""
FEW_LEVELS = 20
"""A text column with more distinct values than this, and than half its rows, is text."""
MOST_CLASSES = 20
"""An integer target with more distinct values is a quantity, not a set of classes."""


def infer_signature(
    table: Any, *, target: str, task: Task | None = None, labels: Sequence[Label] | None = None
) -> Signature:
    """
    Infer a signature; every column but the target is a field.

    Args:
        table: The training table (Polars, pandas or Arrow).
        target: The column to be predicted.
        task: What the model does. By default: labels or a target of text,
            booleans, or integers of at most 20 distinct values make a
            classification, other numbers a regression.
        labels: The labels in the order of the model's probabilities; by
            default the distinct values of the target, sorted.

    Raises:
        InvalidInput: No such target, no rows, or a column of no usable kind;
            names the column.
    """
    frame = dataframes.open_table(table)
    dataframes.require_column(frame, target)
    if not len(frame):
        raise InvalidInput("The training table has no rows, so nothing can be inferred.")
    fields = tuple(_field(frame[name]) for name in frame.columns if name != target)
    if not fields:
        raise InvalidInput(f"The training table has no column besides the target {target!r}.")
    return Signature(fields=fields, output=_output(frame[target], task, labels))


def infer_output(
    table: Any, *, target: str, task: Task | None = None, labels: Sequence[Label] | None = None
) -> Output:
    """Infer a model's output from its target alone; arguments and errors as `infer_signature`."""
    frame = dataframes.open_table(table)
    dataframes.require_column(frame, target)
    if not len(frame):
        raise InvalidInput("The table has no rows, so nothing can be inferred.")
    return _output(frame[target], task, labels)


def infer_fields(table: Any) -> tuple[Field, ...]:
    """
    Infer the fields of a table, every column one, as `infer_signature` does.

    Raises:
        InvalidInput: No rows, or a column of no usable kind; names the column.
    """
    frame = dataframes.open_table(table)
    if not len(frame):
        raise InvalidInput("The training table has no rows, so nothing can be inferred.")
    return tuple(_field(frame[name]) for name in frame.columns)


def _field(series: nw.Series[Any]) -> Field:
    if not is_encodable(series.name):
        raise InvalidInput(f"The column name {series.name!r} has a lone surrogate.", "Rename it.")
    dtype = series.dtype
    if dtype.is_integer():
        return _quantity(series, "integer")
    if dtype.is_float():
        return _quantity(series, "number")
    return _other(series)


def _other(series: nw.Series[Any]) -> Field:
    import narwhals as nw

    dtype = series.dtype
    if dtype == nw.Boolean:
        return Field(name=series.name, kind="boolean", nullable=_has_null(series))
    if dtype in (nw.Date, nw.Datetime):
        return _datetime(series)
    if dtype in (nw.Array, nw.List):
        return _tensor(series)
    return _textual(series)


def _quantity(series: nw.Series[Any], kind: Kind) -> Field:
    import numpy as np

    numbers = dataframes.column_floats(series)
    present = numbers[~np.isnan(numbers)]
    if not present.size:
        raise _empty(series)
    if np.isinf(present).any():
        raise InvalidInput(
            f"The column {series.name!r} holds infinity, which no request can send.",
            "Replace it by null or a number.",
        )
    bounds = widened(float(present.min()), float(present.max()), whole=kind == "integer")
    nullable = present.size < numbers.size
    return Field(name=series.name, kind=kind, nullable=nullable, bounds=bounds)


def _datetime(series: nw.Series[Any]) -> Field:
    moments = [timestamps.to_microseconds(value) for value in _present(series)]
    low, high = float(min(moments)), float(max(moments))
    nullable = len(moments) < len(series)
    bounds = widened(low, high, whole=True)
    return Field(name=series.name, kind="datetime", nullable=nullable, bounds=bounds)


def _textual(series: nw.Series[Any]) -> Field:
    import narwhals as nw

    values = _present(series)
    stranger = next((value for value in values if not isinstance(value, str)), None)
    if stranger is not None:
        raise InvalidInput(
            f"The column {series.name!r} ({series.dtype}) holds {stranger!r}, "
            f"a {type(stranger).__name__}, which is no kind of field.",
            "Cast the column to numbers, booleans, texts, date-times or arrays, or drop it.",
        )
    levels = tuple(sorted(set(values)))
    nullable = len(values) < len(series)
    declared = series.dtype in (nw.Categorical, nw.Enum)
    few = len(levels) <= FEW_LEVELS or len(levels) <= min(MOST_LEVELS, len(values) // 2)
    if declared or few:
        return Field(name=series.name, kind="category", nullable=nullable, levels=levels)
    return Field(name=series.name, kind="text", nullable=nullable)


def _tensor(series: nw.Series[Any]) -> Field:
    import numpy as np

    if _has_null(series):
        raise InvalidInput(
            f"The column of arrays {series.name!r} holds null, which an array cannot say.",
            "Fill it or drop those rows.",
        )
    try:
        block = np.array(series.to_list())
    except ValueError as error:
        raise InvalidInput(
            f"The arrays of the column {series.name!r} differ in shape.", "Make them one shape."
        ) from error
    inner = _innermost(series.dtype)
    if block.dtype.kind not in "biuf" or block.ndim < 2 or inner is None:
        raise InvalidInput(f"The column {series.name!r} ({series.dtype}) holds no numeric arrays.")
    return Field(name=series.name, kind="tensor", dtype=inner, shape=block.shape[1:])


def _innermost(dtype: Any) -> str | None:
    while hasattr(dtype, "inner"):
        dtype = dtype.inner
    if not (dtype.is_numeric() or str(dtype) == "Boolean") or dtype.is_decimal():
        return None
    return "bool" if str(dtype) == "Boolean" else str(dtype).lower()


def widened(low: float, high: float, *, whole: bool = False) -> tuple[float, float]:
    """
    Widen observed bounds to proposed ones.

    Each side gets 5 % of the range (of the value, where the range is nothing),
    but no side crosses zero: ages stay positive, rates of loss negative.

    >>> widened(17, 90, whole=True)
    (13.0, 94.0)
    >>> widened(0, 99999, whole=True)
    (0.0, 104999.0)
    """
    reach = (high - low or abs(high)) * WIDENED
    wide_low, wide_high = low - reach, high + reach
    if low >= 0:
        wide_low = max(wide_low, 0.0)
    if high <= 0:
        wide_high = min(wide_high, 0.0)
    if whole:
        return float(math.floor(wide_low)), float(math.ceil(wide_high))
    return wide_low, wide_high


def _output(series: nw.Series[Any], task: Task | None, labels: Sequence[Label] | None) -> Output:
    values = dataframes.cell_values(series)
    if missing := values.count(None):
        raise InvalidInput(
            f"The target {series.name!r} is missing in {missing} of {len(values)} rows.",
            "Drop those rows.",
        )
    if task is None:
        task = "regression" if labels is None and _is_quantity(values) else None
    if task == "regression":
        return _quantity_output(series.name, values)
    found = tuple(_sorted(set(values)) if labels is None else map(_plain, labels))
    return _label_output(series.name, task, found)


def _is_quantity(values: list[Any]) -> bool:
    if any(isinstance(value, str | bool) for value in values):
        return False
    whole = all(isinstance(value, int) for value in values)
    return not (whole and len(set(values)) <= MOST_CLASSES)


def _quantity_output(name: str, values: list[Any]) -> Output:
    if any(isinstance(value, str | bool) or not math.isfinite(value) for value in values):
        raise InvalidInput(f"The target {name!r} of a regression holds what is no finite number.")
    return Output(name=name, task="regression", bounds=(float(min(values)), float(max(values))))


def _label_output(name: str, task: Task | None, labels: tuple[Label, ...]) -> Output:
    if len(labels) < 2:
        raise InvalidInput(
            f"The target {name!r} has the one label {labels[0]!r}, so there is nothing to tell."
        )
    if task == "binary" and len(labels) != 2:
        raise InvalidInput(f"The target {name!r} has {len(labels)} labels, which is not binary.")
    return Output(
        name=name, task=task or ("binary" if len(labels) == 2 else "multiclass"), labels=labels
    )


def _plain(label: Any) -> Label:
    """A Python value in place of a NumPy one, as `classes_` holds them."""
    plain: Label = label.item() if hasattr(label, "item") else label
    return plain


def _sorted(labels: set[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError as error:
        raise InvalidInput(f"Labels of several types: {sorted(map(repr, labels))}.") from error


def _present(series: nw.Series[Any]) -> list[Any]:
    values = [value for value in dataframes.cell_values(series) if value is not None]
    if not values:
        raise _empty(series)
    return values


def _empty(series: nw.Series[Any]) -> InvalidInput:
    return InvalidInput(
        f"The column {series.name!r} holds no value in any row.", "Drop the column."
    )


def _has_null(series: nw.Series[Any]) -> bool:
    return bool(dataframes.null_mask(series).any())
