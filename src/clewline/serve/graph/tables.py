"""
The tables that a project's functions get and give.

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

A classifier's answers have `label` and a column `P(LABEL)` for each label, a regressor's
have `value`; as `rows` they are `{"label", "probabilities": {…}}` and `{"value"}`,
and as NumPy the probabilities, shape (n, labels), or the values, shape (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem, InvalidConfig, InvalidInput, MalformedInput
from clewline.model.runtime import Outputs
from clewline.signature import dataframes, timestamps
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field, Output, Signature, label_name
from clewline.signature.field_rules import printable_value
from clewline.signature.frame_annotation import Frame
from clewline.signature.model_answers import is_number, plain_scalar

Values = dict[str, list[Any]]

SUM_WITHIN = 1e-6
"""How far the probabilities of a row may be from 1 together."""


def require_frame(node: str, frame: Any) -> Frame:
    """
    Return the name of a kind of table.

    Raises:
        InvalidConfig: There is no such kind.
    """
    if frame not in get_args(Frame):
        known = ", ".join(get_args(Frame))
        raise InvalidConfig(f"The node {node!r} has the frame {frame!r}.", f"Use one of {known}.")
    found: Frame = frame
    return found


def table_of(columns: Columns, signature: Signature, frame: Frame) -> Any:
    """Return checked rows as a table of a kind; it shares no memory with the arrays."""
    is_numeric = all(field.kind in ("number", "integer", "boolean") for field in signature.fields)
    if frame == "numpy" and is_numeric:
        return columns.numbers.copy()
    numbers = dict(zip((f.name for f in signature.numeric), columns.numbers.T, strict=True))
    texts = dict(zip((f.name for f in signature.textual), columns.texts.T, strict=True))
    values: Values = {}
    for field in signature.fields:
        if field.kind in NUMERIC:
            to, column = _FROM_NUMBER[field.kind], numbers[field.name].tolist()
            values[field.name] = [None if math.isnan(value) else to(value) for value in column]
        else:
            found = columns.tensors if field.kind == "tensor" else texts
            values[field.name] = found[field.name].tolist()
    if frame == "rows":
        return _records(values)
    if frame != "numpy":
        return _table(values, {field.name: field for field in signature.fields}, frame)
    matrix = np.empty((len(columns), len(values)), dtype=object)
    for place, column in enumerate(values.values()):
        for row, value in enumerate(column):
            matrix[row, place] = value
    return matrix


def columns_of(result: Any, checker: Checker, rows: int) -> Columns:
    """
    Read the result of a function as the fields of a signature; other columns are ignored.

    Args:
        result: A Polars or pandas table, a NumPy array with one column a field in
            their order, or a list of dicts.
        checker: Checks it.
        rows: Number of rows that it must have, in the order of the input.

    Raises:
        InvalidInput: It does not fit; names row, field and value of every bad cell.
    """
    fields = checker.signature.fields
    if isinstance(result, np.ndarray):
        if result.ndim != 2 or result.shape[1] != len(fields):
            raise MalformedInput(
                f"It gave an array of the shape {list(result.shape)}.",
                f"The next node takes {len(fields)} columns: {', '.join(f.name for f in fields)}.",
            )
        values: Values = {}
        for field, column in zip(fields, result.T.tolist(), strict=True):
            if field.kind == "boolean":  # as numbers hold them: 0, 1 and NaN
                column = [bool(cell) if cell in (0, 1) else cell for cell in column]
            values[field.name] = column
        result = _records(values)
    count = len(result) if hasattr(result, "__len__") else -1
    if count != rows:
        gave = f"{count} rows" if count >= 0 else f"a {type(result).__name__}"
        raise MalformedInput(f"It got {rows} rows and gave {gave}.", "Give one row for each.")
    known = {field.name for field in fields}
    if not isinstance(result, list):
        if hasattr(result, "columns"):
            found = list(result.columns)
            result = result[[field.name for field in fields if field.name in found]]
        return checker.table(result).columns
    kept = []
    for place, row in enumerate(result):
        if not isinstance(row, dict):
            raise MalformedInput(f"Row {place} is a {type(row).__name__}.", "Give dicts.")
        kept.append({name: value for name, value in row.items() if name in known})
        for name, value in kept[-1].items():
            if isinstance(value, float) and math.isinf(value):  # JSON would make it null
                problem = FieldProblem(place, name, str(value), "a finite number")
                message = (
                    f"Row {place}, field {name!r}: {value} where a finite number was expected."
                )
                raise InvalidInput(message, None, (problem,))
    try:
        body = msgspec.json.encode(kept, enc_hook=_plain)
    except (TypeError, ValueError) as error:
        message = f"A value is not a value of a field: {error}."
        raise MalformedInput(message, "Give plain values.") from error
    return checker.columns(checker.decode(body) if kept else []).columns


def _records(values: Values) -> list[dict[str, Any]]:
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _table(values: Values, fields: dict[str, Field], frame: Frame) -> Any:
    """Make a Polars or pandas table; a column without a field gets the type of its values."""
    if frame == "polars":
        import polars as pl

        types: dict[str | None, Any] = {
            "number": pl.Float64,
            "integer": pl.Int64,
            "boolean": pl.Boolean,
            "category": pl.String,
            "text": pl.String,
            "datetime": pl.Datetime("us", "UTC"),
        }
        kinds = {name: fields[name].kind if name in fields else None for name in values}
        return pl.DataFrame(
            [pl.Series(name, column, types.get(kinds[name])) for name, column in values.items()]
        )
    import pandas as pd

    series = {}
    for name, column in values.items():
        if (field := fields.get(name)) is not None:
            dtype = _PANDAS_DTYPES.get((field.kind, field.nullable), _PANDAS_DTYPES.get(field.kind))
        else:
            dtype = "str" if column and isinstance(column[0], str) else None
        series[name] = pd.Series(column, dtype=dtype)
    return pd.DataFrame(series)


_PANDAS_DTYPES: dict[Any, Any] = {
    "number": "float64",
    "integer": "int64",
    ("integer", True): "Int64",
    "boolean": "bool",
    ("boolean", True): "boolean",
    "category": "str",
    "text": "str",
    "datetime": "datetime64[us, UTC]",
    "tensor": "object",
}
"""Kind of a field, or the kind and whether it is nullable → dtype of its column."""


_FROM_NUMBER: dict[str, Callable[[float], Any]] = {
    "number": float,
    "integer": int,
    "boolean": bool,
    "datetime": lambda number: timestamps.EPOCH + int(number) * timestamps.MICROSECOND,
}


def _plain(value: Any) -> Any:
    """Return a NumPy scalar or array as JSON knows it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")


# Answers


def share_column(label: Any) -> str:
    """
    Name the column of a label's probability.

    >>> share_column(">50K")
    'P(>50K)'
    """
    return f"P({label_name(label)})"


def answers_of(outputs: Outputs, output: Output, frame: Frame) -> Any:
    """Return answers as a table of a kind; it shares no memory with the arrays."""
    labels = output.labels or ()
    if frame == "numpy":
        found = outputs.values if outputs.values is not None else outputs.probabilities
        if found is None:
            raise MalformedInput(
                "The answers are labels without probabilities.", "Take them as a table or as rows."
            )
        return found.copy()
    values: Values = {}
    if outputs.values is not None:
        values["value"] = outputs.values.tolist()
    if outputs.choices is not None:
        values["label"] = [labels[choice] for choice in outputs.choices.tolist()]
    if outputs.probabilities is None:
        return _records(values) if frame == "rows" else _table(values, {}, frame)
    if frame == "rows":
        names = [label_name(label) for label in labels]
        values["probabilities"] = [
            dict(zip(names, shares, strict=True)) for shares in outputs.probabilities.tolist()
        ]
        return _records(values)
    for label, share in zip(labels, outputs.probabilities.T, strict=True):
        values[share_column(label)] = share.tolist()
    return _table(values, {}, frame)


def outputs_of(result: Any, output: Output, rows: int, *, with_shares: bool = True) -> Outputs:
    """
    Read answers from the result of a function.

    Without a label, or as NumPy, the label is that of the greatest probability, the
    first of equal ones. If `with_shares` is False, the function got labels without
    probabilities, and only labels are read.

    Raises:
        MalformedInput: It has another number of rows, a label that the endpoint
            does not have, or an invalid probability; names the row.
    """
    labels, numbers = None, None
    if not with_shares and output.labels is not None:
        try:
            is_rows = isinstance(result, list)
            column = dataframes.column_values
            labels = [row["label"] for row in result] if is_rows else column(result, "label")
        except (KeyError, TypeError) as error:
            fix = 'Give {"label"} for each row.'
            raise MalformedInput("Its rows have no label.", fix) from error
    elif isinstance(result, np.ndarray):
        is_float = result.dtype.kind == "f"
        cells = result if is_float else _numbers(result.ravel().tolist()).reshape(result.shape)
        numbers = np.asarray(cells, dtype=np.float64)
    elif isinstance(result, list):
        labels, numbers = _of_rows(result, output)
    else:
        labels, numbers = _of_table(result, output)
    count = len(numbers if numbers is not None else labels or ())
    if count != rows:
        raise MalformedInput(f"It got {rows} answers and gave {count}.")
    if numbers is not None:
        numbers = np.ascontiguousarray(numbers)
        _require_valid(numbers, rows, output)
        if output.labels is None:
            return Outputs(values=numbers)
    if labels is None:
        choices = np.argmax(numbers, axis=1).astype(np.int64)  # type: ignore[arg-type]
        return Outputs(choices=choices, probabilities=numbers)
    places = {(type(x), x): place for place, x in enumerate(output.labels or ())}
    for row, label in enumerate(labels):
        if (type(label), label) not in places:
            fix = f"The endpoint's labels are {list(output.labels or ())}."
            raise MalformedInput(f"Row {row}: the label is {label!r}.", fix)
    choices = np.array([places[type(label), label] for label in labels], dtype=np.int64)
    return Outputs(choices=choices, probabilities=numbers)


def _of_rows(rows: list[Any], output: Output) -> tuple[list[Any] | None, NDArray[np.float64]]:
    try:
        if output.labels is None:
            return None, np.array([_number(row["value"]) for row in rows], dtype=np.float64)
        names = [label_name(label) for label in output.labels]
        shares = [[_number(row["probabilities"][name]) for name in names] for row in rows]
        has_label = all("label" in row for row in rows)
        labels = [row["label"] for row in rows] if has_label else None
        return labels, np.array(shares, dtype=np.float64).reshape(len(rows), len(names))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedInput(
            f"Its rows are not answers: {type(error).__name__}: {error}.",
            'Give {"label", "probabilities": {…}} or {"value"} for each row.',
        ) from error


def _numbers(cells: list[Any]) -> NDArray[np.float64]:
    """Return the cells of an array or column as they are; raises MalformedInput as for rows."""
    try:
        return np.array([_number(cell) for cell in cells], dtype=np.float64)
    except ValueError as error:
        raise MalformedInput(f"{error}.", "Give numbers.") from error


def _number(cell: Any) -> float:
    """Return a number as it is; NumPy would also take a text, a boolean and any integer."""
    if type(cell) is float:
        return cell  # `_require_valid` looks whether it is finite
    plain = plain_scalar(cell)
    if not (isinstance(plain, float) or is_number(plain)):
        raise ValueError(f"{printable_value(plain)!r} is not a number that float64 holds")
    return float(plain)


def _of_table(table: Any, output: Output) -> tuple[list[Any] | None, NDArray[np.float64]]:
    opened = dataframes.open_table(table)
    wanted = ["value"] if output.labels is None else [share_column(x) for x in output.labels]
    missing = [name for name in wanted if name not in opened.columns]
    if missing:
        raise MalformedInput(f"The column {missing[0]!r} is missing.", f"It has {opened.columns}.")
    columns = [
        dataframes.column_floats(opened[name])
        if opened[name].dtype.is_float()
        else _numbers(opened[name].to_list())
        for name in wanted
    ]
    if output.labels is None:
        return None, columns[0]
    labels = dataframes.cell_values(opened["label"]) if "label" in opened.columns else None
    return labels, np.column_stack(columns)


def _require_valid(numbers: NDArray[np.float64], rows: int, output: Output) -> None:
    """Check values, shape (n,), or probabilities, shape (n, labels)."""
    shape = [rows] if output.labels is None else [rows, len(output.labels)]
    if list(numbers.shape) != shape:
        raise MalformedInput(f"Its numbers have the shape {list(numbers.shape)}, not {shape}.")
    if output.labels is None:
        good: Any = np.isfinite(numbers)
        what, fix = "value is", "Give finite numbers."
    else:
        good = ((numbers >= 0) & (numbers <= 1)).all(axis=1)
        good &= np.abs(numbers.sum(axis=1) - 1) <= SUM_WITHIN
        what, fix = "probabilities are", "Give numbers from 0 to 1 that sum to 1."
    for row in np.flatnonzero(~good).tolist():
        raise MalformedInput(f"Row {row}: the {what} {numbers[row].tolist()}.", fix)
