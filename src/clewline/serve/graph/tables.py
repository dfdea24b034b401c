"""
The tables that a project's functions are given, and what they give back.

A function declares what it takes: a Polars or pandas table, a NumPy array, or
`rows`, a list of dicts. The types of the columns come from the signature alone,
never from the values, so that a row looks the same whoever shares its batch.

    kind       polars          pandas                      rows
    number     Float64         float64                     float, None
    integer    Int64           int64, Int64 if nullable    int, None
    boolean    Boolean         bool, boolean if nullable   bool, None
    category,
    text       String          str                         str, None
    datetime   Datetime[us],   datetime64[us, UTC]         datetime in UTC, None
               UTC
    tensor     List            object                      nested lists

NumPy gets one float64 matrix where every field is a number, integer or boolean,
otherwise one of objects, columns in the order of the fields.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem, InvalidConfig, InvalidInput, MalformedInput
from clewline.serve.graph.functions import Frame
from clewline.signature import timestamps
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field, Signature

Values = dict[str, list[Any]]


def require_frame(node: str, frame: Any) -> Frame:
    """
    Check the name of a frame type.

    Raises:
        InvalidConfig: It is none.
    """
    if frame not in get_args(Frame):
        known = ", ".join(get_args(Frame))
        raise InvalidConfig(f"The node {node!r} has the frame {frame!r}.", f"There are: {known}.")
    found: Frame = frame
    return found


def table_of(columns: Columns, signature: Signature, frame: Frame) -> Any:
    """Give checked rows as a table of a kind; it shares no memory with the arrays."""
    if frame == "numpy":
        return _matrix(columns, signature)
    values = _values(columns, signature)
    if frame == "rows":
        return records(values)
    return _FRAMES[frame](values, {field.name: field for field in signature.fields})


def columns_of(result: Any, checker: Checker, rows: int) -> Columns:
    """
    Read what a function gave as the fields of a signature; columns beside them are left.

    Args:
        result: A Polars or pandas table, a NumPy array with one column a field in
            their order, or a list of dicts.
        checker: Checks it.
        rows: How many there must be, in the order in which they were given.

    Raises:
        InvalidInput: It is not that; names row, field and value of every bad cell.
    """
    fields = checker.signature.fields
    if isinstance(result, np.ndarray):
        result = _columns_of_matrix(result, fields)
    count = len(result) if hasattr(result, "__len__") else -1
    if count != rows:
        gave = f"{count} rows" if count >= 0 else f"a {type(result).__name__}"
        raise MalformedInput(f"It was given {rows} rows and gave {gave}.", "Give one row for each.")
    if isinstance(result, list):
        return _columns_of_records(result, checker)
    names = [field.name for field in fields]
    if hasattr(result, "columns"):
        result = result[[name for name in names if name in list(result.columns)]]
    return checker.table(result).columns


def records(values: Values) -> list[dict[str, Any]]:
    """Give columns as a list of dicts."""
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def polars_table(values: Values, fields: dict[str, Field]) -> Any:
    """Make a Polars table; a column without a field gets the type of its values."""
    import polars as pl

    dtypes: dict[str, Any] = {
        "number": pl.Float64,
        "integer": pl.Int64,
        "boolean": pl.Boolean,
        "category": pl.String,
        "text": pl.String,
        "datetime": pl.Datetime("us", "UTC"),
    }
    series = {}
    for name, column in values.items():
        field = fields.get(name)
        series[name] = pl.Series(name, column, None if field is None else dtypes.get(field.kind))
    return pl.DataFrame(series)


def pandas_table(values: Values, fields: dict[str, Field]) -> Any:
    """Make a pandas table; a column without a field gets the type of its values."""
    import pandas as pd

    return pd.DataFrame(
        {name: pd.Series(column, dtype=_pandas_dtype(fields.get(name), column))
         for name, column in values.items()}
    )  # fmt: skip


def _pandas_dtype(field: Field | None, column: list[Any]) -> Any:
    if field is None:
        return "str" if column and isinstance(column[0], str) else None
    if field.kind == "integer":
        return "Int64" if field.nullable else "int64"
    if field.kind == "boolean":
        return "boolean" if field.nullable else "bool"
    fixed = {"number": "float64", "datetime": "datetime64[us, UTC]", "tensor": "object"}
    return fixed.get(field.kind, "str")


_FRAMES: dict[str, Callable[[Values, dict[str, Field]], Any]] = {
    "polars": polars_table,
    "pandas": pandas_table,
}


def _values(columns: Columns, signature: Signature) -> Values:
    """The columns as Python values, in the order of the fields; null is None."""
    numbers = dict(zip((f.name for f in signature.numeric), columns.numbers.T, strict=True))
    texts = dict(zip((f.name for f in signature.textual), columns.texts.T, strict=True))
    found = {}
    for field in signature.fields:
        if field.kind == "tensor":
            found[field.name] = columns.tensors[field.name].tolist()
        elif field.kind in NUMERIC:
            to = _TYPES[field.kind]
            column = numbers[field.name].tolist()
            found[field.name] = [None if math.isnan(value) else to(value) for value in column]
        else:
            found[field.name] = texts[field.name].tolist()
    return found


def _moment(microseconds: float) -> dt.datetime:
    return timestamps.EPOCH + int(microseconds) * timestamps.MICROSECOND


_TYPES: dict[str, Callable[[float], Any]] = {
    "number": float,
    "integer": int,
    "boolean": bool,
    "datetime": _moment,
}


def _matrix(columns: Columns, signature: Signature) -> NDArray[Any]:
    if all(field.kind in ("number", "integer", "boolean") for field in signature.fields):
        return columns.numbers.copy()
    values = _values(columns, signature)
    matrix = np.empty((len(columns), len(values)), dtype=object)
    for place, column in enumerate(values.values()):
        for row, value in enumerate(column):
            matrix[row, place] = value
    return matrix


def _columns_of_matrix(matrix: NDArray[Any], fields: tuple[Field, ...]) -> Any:
    if matrix.ndim != 2 or matrix.shape[1] != len(fields):
        raise MalformedInput(
            f"It gave an array of the shape {list(matrix.shape)}.",
            f"What follows takes {len(fields)} columns: {', '.join(f.name for f in fields)}.",
        )
    values = {field.name: matrix[:, place].tolist() for place, field in enumerate(fields)}
    for field in fields:
        if field.kind == "boolean":  # as numbers hold them: 0, 1 and NaN
            values[field.name] = [_truth(value) for value in values[field.name]]
    return records(values)


def _truth(value: Any) -> Any:
    return bool(value) if value in (0, 1) else value


def _columns_of_records(rows: list[Any], checker: Checker) -> Columns:
    names = [field.name for field in checker.signature.fields]
    known = set(names)
    kept = []
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise MalformedInput(f"Row {place} is a {type(row).__name__}.", "Give dicts.")
        kept.append({name: value for name, value in row.items() if name in known})
        _require_finite(place, kept[-1])
    try:
        body = msgspec.json.encode(kept, enc_hook=_plain)
    except (TypeError, ValueError) as error:
        raise MalformedInput(
            f"A value is no value of a field: {error}.", "Give plain ones."
        ) from error
    return checker.columns(checker.decode(body)).columns if kept else checker.columns([]).columns


def _require_finite(place: int, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if isinstance(value, float) and math.isinf(value):
            problem = FieldProblem(place, name, str(value), "a finite number")
            raise InvalidInput(
                f"Row {place}, field {name!r}: {value} where a finite number was expected.",
                None,
                (problem,),
            )


def _plain(value: Any) -> Any:
    """A NumPy scalar or array as JSON knows it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")
