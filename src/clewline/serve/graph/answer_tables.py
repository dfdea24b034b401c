"""
Answers as tables, for functions that work on them.

A classifier's have `label` and a column `P(LABEL)` for each label, a regressor's
have `value`; as `rows` they are `{"label", "probabilities": {…}}` and
`{"value"}`, and as NumPy the probabilities, shape (n, labels), or the values,
shape (n,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidConfig, MalformedInput
from clewline.model.runtime import Outputs
from clewline.serve.answer_writer import label_name
from clewline.serve.graph.functions import Frame
from clewline.serve.graph.tables import pandas_table, polars_table, records
from clewline.signature import dataframes
from clewline.signature.field import Output

SUM_WITHIN = 1e-6
"""How far the probabilities of a row may be from 1 together."""


def share_column(label: Any) -> str:
    """
    Name the column of a label's probability.

    >>> share_column(">50K")
    'P(>50K)'
    """
    return f"P({label_name(label)})"


def require_plain(node: str, output: Output) -> None:
    """
    Make sure that answers can stand in a table.

    Raises:
        InvalidConfig: They are arrays.
    """
    if output.task == "tensor":
        raise InvalidConfig(
            f"What stands below {node!r} answers arrays, which no function or mean takes.",
            "Change them in the model itself.",
        )


def answers_of(outputs: Outputs, output: Output, frame: Frame) -> Any:
    """Give answers as a table of a kind; it shares no memory with the arrays."""
    if frame == "numpy":
        found = outputs.values if outputs.values is not None else outputs.probabilities
        if found is None:
            raise MalformedInput("There are labels alone.", "Take them as a table, or as rows.")
        return found.copy()
    if outputs.values is not None:
        values: dict[str, list[Any]] = {"value": outputs.values.tolist()}
    elif frame == "rows":
        return _rows(outputs, output)
    else:
        values = _table(outputs, output)
    if frame == "rows":
        return records(values)
    return (polars_table if frame == "polars" else pandas_table)(values, {})


def outputs_of(result: Any, output: Output, rows: int, *, with_shares: bool = True) -> Outputs:
    """
    Read answers from what a function gave.

    Without a label, or as NumPy, the label is the one of the greatest probability,
    the first of equal ones. Where what stands below tells labels alone
    (`with_shares` is False), only labels are read.

    Raises:
        MalformedInput: It is not that: other rows, a label that the endpoint does
            not have, a probability that is none; names the row.
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
        raise MalformedInput(f"It was given {rows} answers and gave {len(numbers)}.")
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
        raise MalformedInput(f"It was given {rows} answers and gave {len(labels)}.")
    return labels


def _table(outputs: Outputs, output: Output) -> dict[str, list[Any]]:
    assert outputs.choices is not None
    labels = output.labels or ()
    values = {"label": [labels[choice] for choice in outputs.choices.tolist()]}
    if outputs.probabilities is None:
        return values
    for label, share in zip(labels, outputs.probabilities.T, strict=True):
        values[share_column(label)] = share.tolist()
    return values


def _rows(outputs: Outputs, output: Output) -> list[dict[str, Any]]:
    assert outputs.choices is not None
    labels = output.labels or ()
    if outputs.probabilities is None:
        return [{"label": labels[choice]} for choice in outputs.choices.tolist()]
    names = [label_name(label) for label in labels]
    return [
        {"label": labels[choice], "probabilities": dict(zip(names, shares, strict=True))}
        for choice, shares in zip(
            outputs.choices.tolist(), outputs.probabilities.tolist(), strict=True
        )
    ]


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
