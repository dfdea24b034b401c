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

import datetime as dt
import math
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem, InvalidConfig, InvalidInput, MalformedInput
from clewline.flow.code.frame_annotation import Frame
from clewline.model.runtime import Outputs
from clewline.signature import dataframes, timestamps
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field, Output, Signature, label_name

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
    if frame == "numpy":
        return _matrix(columns, signature)
    values = _values(columns, signature)
    if frame == "rows":
        return records(values)
    return _TABLES[frame](values, {field.name: field for field in signature.fields})


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
        result = _columns_of_matrix(result, fields)
    count = len(result) if hasattr(result, "__len__") else -1
    if count != rows:
        gave = f"{count} rows" if count >= 0 else f"a {type(result).__name__}"
        raise MalformedInput(f"It got {rows} rows and gave {gave}.", "Give one row for each.")
    if isinstance(result, list):
        return _columns_of_records(result, checker)
    names = [field.name for field in fields]
    if hasattr(result, "columns"):
        result = result[[name for name in names if name in list(result.columns)]]
    return checker.table(result).columns


def records(values: Values) -> list[dict[str, Any]]:
    """Return columns as a list of dicts."""
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


_TABLES: dict[str, Callable[[Values, dict[str, Field]], Any]] = {
    "polars": polars_table,
    "pandas": pandas_table,
}


def _values(columns: Columns, signature: Signature) -> Values:
    """Return the columns as Python values, in the order of the fields; null is None."""
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
            f"The next node takes {len(fields)} columns: {', '.join(f.name for f in fields)}.",
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
            f"A value is not a value of a field: {error}.", "Give plain ones."
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
    if frame == "numpy":
        found = outputs.values if outputs.values is not None else outputs.probabilities
        if found is None:
            raise MalformedInput(
                "The answers are labels without probabilities.", "Take them as a table or as rows."
            )
        return found.copy()
    if frame == "rows":
        return _answer_rows(outputs, output)
    labels = output.labels or ()
    values: Values = {}
    if outputs.values is not None:
        values["value"] = outputs.values.tolist()
    if outputs.choices is not None:
        values["label"] = [labels[choice] for choice in outputs.choices.tolist()]
    if outputs.probabilities is not None:
        for label, share in zip(labels, outputs.probabilities.T, strict=True):
            values[share_column(label)] = share.tolist()
    return _TABLES[frame](values, {})


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
    if not with_shares and output.labels is not None:
        return Outputs(choices=_choices(_labels_alone(result, rows), output))
    if isinstance(result, np.ndarray):
        labels, numbers = None, np.asarray(result, dtype=np.float64)
    elif isinstance(result, list):
        labels, numbers = _of_rows(result, output)
    else:
        labels, numbers = _of_table(result, output)
    if len(numbers) != rows:
        raise MalformedInput(f"It got {rows} answers and gave {len(numbers)}.")
    if output.labels is None:
        return Outputs(values=_checked_values(numbers, rows))
    shares = _checked_shares(numbers, (rows, len(output.labels)))
    choices = np.argmax(shares, axis=1) if labels is None else _choices(labels, output)
    return Outputs(choices=choices.astype(np.int64), probabilities=shares)


def _labels_alone(result: Any, rows: int) -> list[Any]:
    try:
        labels = (
            [row["label"] for row in result]
            if isinstance(result, list)
            else dataframes.column_values(result, "label")
        )
    except (KeyError, TypeError) as error:
        raise MalformedInput("Its rows have no label.", 'Give {"label"} for each row.') from error
    if len(labels) != rows:
        raise MalformedInput(f"It got {rows} answers and gave {len(labels)}.")
    return labels


def _answer_rows(outputs: Outputs, output: Output) -> list[dict[str, Any]]:
    if outputs.values is not None:
        return [{"value": value} for value in outputs.values.tolist()]
    assert outputs.choices is not None
    labels = output.labels or ()
    rows: list[dict[str, Any]] = [{"label": labels[i]} for i in outputs.choices.tolist()]
    if outputs.probabilities is not None:
        names = [label_name(label) for label in labels]
        for row, shares in zip(rows, outputs.probabilities.tolist(), strict=True):
            row["probabilities"] = dict(zip(names, shares, strict=True))
    return rows


def _of_rows(rows: list[Any], output: Output) -> tuple[list[Any] | None, NDArray[np.float64]]:
    try:
        if output.labels is None:
            return None, np.array([row["value"] for row in rows], dtype=np.float64)
        names = [label_name(label) for label in output.labels]
        shares = [[row["probabilities"][name] for name in names] for row in rows]
        has_label = all("label" in row for row in rows)
        labels = [row["label"] for row in rows] if has_label else None
        return labels, np.array(shares, dtype=np.float64).reshape(len(rows), len(names))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedInput(
            f"Its rows are not answers: {type(error).__name__}: {error}.",
            'Give {"label", "probabilities": {…}} or {"value"} for each row.',
        ) from error


def _of_table(table: Any, output: Output) -> tuple[list[Any] | None, NDArray[np.float64]]:
    opened = dataframes.open_table(table)
    wanted = ["value"] if output.labels is None else [share_column(x) for x in output.labels]
    missing = [name for name in wanted if name not in opened.columns]
    if missing:
        raise MalformedInput(f"The column {missing[0]!r} is missing.", f"It has {opened.columns}.")
    columns = [
        np.asarray(dataframes.column_floats(opened[name]), dtype=np.float64) for name in wanted
    ]
    if output.labels is None:
        return None, columns[0]
    labels = dataframes.cell_values(opened["label"]) if "label" in opened.columns else None
    return labels, np.column_stack(columns)


def _checked_values(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    if values.shape != (rows,):
        raise MalformedInput(f"Its values have the shape {list(values.shape)}, not [{rows}].")
    for row in np.flatnonzero(~np.isfinite(values)).tolist():
        raise MalformedInput(f"Row {row}: the value is {values[row]}.", "Give finite numbers.")
    return np.ascontiguousarray(values)


def _checked_shares(shares: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    if shares.shape != shape:
        raise MalformedInput(
            f"Its probabilities have the shape {list(shares.shape)}, not {list(shape)}."
        )
    good = ((shares >= 0) & (shares <= 1)).all(axis=1)
    good &= np.abs(shares.sum(axis=1) - 1) <= SUM_WITHIN
    for row in np.flatnonzero(~good).tolist():
        raise MalformedInput(
            f"Row {row}: the probabilities are {shares[row].tolist()}.",
            "Give numbers from 0 to 1 that sum to 1.",
        )
    return np.ascontiguousarray(shares)


def _choices(labels: list[Any], output: Output) -> NDArray[np.int64]:
    places = {(type(x), x): place for place, x in enumerate(output.labels or ())}
    found = []
    for row, label in enumerate(labels):
        place = places.get((type(label), label))
        if place is None:
            raise MalformedInput(
                f"Row {row}: the label is {label!r}.",
                f"The endpoint's labels are {list(output.labels or ())}.",
            )
        found.append(place)
    return np.array(found, dtype=np.int64)
