"""Infer a signature from a training table: kinds, nullability, and proposed bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clewline.errors import InvalidInput
from clewline.signature.dataframes import (
    cell_values,
    column_floats,
    null_mask,
    open_table,
    require_column,
)
from clewline.signature.field import Field, Kind, Output, Signature, Task
from clewline.signature.field_rules import is_encodable
from clewline.signature.timestamps import to_microseconds

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
    Infer a signature; every column except the target is a field.

    Args:
        table: The training table (Polars, pandas or Arrow).
        target: The column to be predicted.
        task: What the model does. By default it is a classification if `labels` are given or
            the target holds strings, booleans, or integers of at most 20 distinct values, and
            a regression otherwise.
        labels: The labels in the order of the model's probabilities; by default the distinct
            values of the target, sorted.

    Raises:
        InvalidInput: There is no such target, there are no rows, or a column has no usable
            kind; names the column.
    """
    output = infer_output(table, target=target, task=task, labels=labels)
    fields = infer_fields(table, target=target)
    if not fields:
        raise InvalidInput(f"The training table has no column besides the target {target!r}.")
    return Signature(fields=fields, output=output)


def infer_output(
    table: Any, *, target: str, task: Task | None = None, labels: Sequence[Label] | None = None
) -> Output:
    """Infer a model's output from its target alone; arguments and errors as `infer_signature`."""
    frame = _open_with_rows(table)
    require_column(frame, target)
    values = cell_values(frame[target])
    if missing := values.count(None):
        raise InvalidInput(
            f"The target {target!r} is missing in {missing} of {len(values)} rows.",
            "Drop those rows.",
        )
    has_labels = any(isinstance(value, str | bool) for value in values)
    is_whole = all(isinstance(value, int) for value in values)
    is_quantity = not has_labels and not (is_whole and len(set(values)) <= MOST_CLASSES)
    if task == "regression" or (task is None and labels is None and is_quantity):
        if has_labels or not all(map(math.isfinite, values)):
            raise InvalidInput(
                f"The target {target!r} of a regression holds values that are not finite numbers."
            )
        bounds = (float(min(values)), float(max(values)))
        return Output(name=target, task="regression", bounds=bounds)
    if labels is None:
        try:
            found = tuple(sorted(set(values)))
        except TypeError as error:
            types = sorted(map(repr, set(values)))
            raise InvalidInput(f"Labels of several types: {types}.") from error
    else:  # `classes_` holds NumPy values
        found = tuple(label.item() if hasattr(label, "item") else label for label in labels)
    if len(found) < 2:
        raise InvalidInput(
            f"Every row of the target {target!r} has the label {found[0]!r}, "
            "so there is nothing to predict."
        )
    if task == "binary" and len(found) != 2:
        raise InvalidInput(f"The target {target!r} has {len(found)} labels, which is not binary.")
    return Output(
        name=target, task=task or ("binary" if len(found) == 2 else "multiclass"), labels=found
    )


def infer_fields(table: Any, *, target: str | None = None) -> tuple[Field, ...]:
    """
    Infer one field per column except the target, as `infer_signature` does.

    Raises:
        InvalidInput: There are no rows, or a column has no usable kind; names the column.
    """
    frame = _open_with_rows(table)
    return tuple(_infer_field(frame[name]) for name in frame.columns if name != target)


def _open_with_rows(table: Any) -> nw.DataFrame[Any]:
    frame = open_table(table)
    if not len(frame):
        raise InvalidInput("The training table has no rows, so nothing can be inferred.")
    return frame


def _infer_field(series: nw.Series[Any]) -> Field:
    import narwhals as nw

    if not is_encodable(series.name):
        raise InvalidInput(f"The column name {series.name!r} has a lone surrogate.", "Rename it.")
    dtype = series.dtype
    if dtype.is_integer() or dtype.is_float():
        return _infer_quantity(series, "integer" if dtype.is_integer() else "number")
    nullable = bool(null_mask(series).any())
    if dtype == nw.Boolean:
        return Field(name=series.name, kind="boolean", nullable=nullable)
    if dtype in (nw.Array, nw.List):
        return _infer_tensor(series, nullable)
    values = [value for value in cell_values(series) if value is not None]
    if not values:
        raise _empty(series)
    nullable = len(values) < len(series)
    if dtype in (nw.Date, nw.Datetime):
        moments = [to_microseconds(value) for value in values]
        bounds = widened(float(min(moments)), float(max(moments)), whole=True)
        return Field(name=series.name, kind="datetime", nullable=nullable, bounds=bounds)
    other = next((value for value in values if not isinstance(value, str)), None)
    if other is not None:
        raise InvalidInput(
            f"The column {series.name!r} ({dtype}) holds {other!r}, a {type(other).__name__}, "
            "which cannot be a field.",
            "Cast the column to numbers, booleans, strings, date-times or arrays, or drop it.",
        )
    levels = tuple(sorted(set(values)))
    declared = dtype in (nw.Categorical, nw.Enum)
    few = len(levels) <= FEW_LEVELS or len(levels) <= min(MOST_LEVELS, len(values) // 2)
    if declared or few:
        return Field(name=series.name, kind="category", nullable=nullable, levels=levels)
    return Field(name=series.name, kind="text", nullable=nullable)


def _infer_quantity(series: nw.Series[Any], kind: Kind) -> Field:
    import numpy as np

    numbers = column_floats(series)
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


def _infer_tensor(series: nw.Series[Any], has_null: bool) -> Field:
    import numpy as np

    if has_null:
        raise InvalidInput(
            f"The column of arrays {series.name!r} holds null.", "Fill it or drop those rows."
        )
    try:
        block = np.array(series.to_list())
    except ValueError as error:
        raise InvalidInput(
            f"The arrays of the column {series.name!r} differ in shape.", "Give them one shape."
        ) from error
    inner: Any = series.dtype
    while hasattr(inner, "inner"):
        inner = inner.inner
    name = "bool" if str(inner) == "Boolean" else str(inner).lower()
    is_number = (inner.is_numeric() or name == "bool") and not inner.is_decimal()
    if block.dtype.kind not in "biuf" or block.ndim < 2 or not is_number:
        raise InvalidInput(
            f"The column {series.name!r} ({series.dtype}) holds arrays that are not numeric."
        )
    return Field(name=series.name, kind="tensor", dtype=name, shape=block.shape[1:])


def _empty(series: nw.Series[Any]) -> InvalidInput:
    return InvalidInput(f"Every row of the column {series.name!r} is null.", "Drop the column.")


def widened(low: float, high: float, *, whole: bool = False) -> tuple[float, float]:
    """
    Widen observed bounds to proposed ones.

    Each side moves by 5 % of the range (of the value, if the range is 0), but not across zero:
    ages stay positive, and losses negative.

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
