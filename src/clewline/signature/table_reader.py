"""
Read a table by the same rules as JSON rows.

Columns of a fitting type are checked as a whole. The cells of any other column are judged one
by one, so that a table row is judged as the same row in JSON. NaN and NaT are null.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem
from clewline.signature.columns import Columns
from clewline.signature.dataframes import cell_values, column_floats, open_table
from clewline.signature.field_rules import EXACT, FieldRule, RefusedValue, printable_value
from clewline.signature.json_rows import NameSuggestions
from clewline.signature.timestamps import to_microseconds

if TYPE_CHECKING:
    import narwhals as nw

MOST_PROBLEMS = 10_000
"""Largest number of bad cells that are named, per column and in all."""


def read_table(frame: Any, rules: Sequence[FieldRule]) -> tuple[Columns, list[FieldProblem]]:
    """
    Turn a table into arrays.

    Args:
        frame: A Polars, pandas or Arrow table; its columns in any order.
        rules: One per field, in the order of a row: numeric, textual, tensors.

    Returns:
        The arrays (meaningful if nothing was refused), and up to 10,000 problems, by row, then
        field. A column that is missing or not in the signature is named once, at row 0.

    Raises:
        InvalidInput: It is not a table.
    """
    table = open_table(frame)
    problems: list[FieldProblem] = []
    numbers: list[NDArray[np.float64]] = []
    texts: list[list[Any]] = []
    tensors: dict[str, NDArray[np.generic]] = {}
    for rule in rules:
        name, kind, shape = rule.field.name, rule.field.kind, rule.field.shape or ()
        series = table[name] if name in table.columns else None
        if series is None:
            expected = f"{rule.expected}; the column is missing"
            problems.append(FieldProblem(0, name, None, expected))
        if kind == "tensor":
            judged = [] if series is None else _read_cells(rule, series, problems)
            judged = [value for value in judged if value is not None]
            tensors[name] = np.array(judged, dtype=rule.field.dtype).reshape((-1, *shape))
        elif kind in ("category", "text"):
            empty = [None] * len(table)
            texts.append(empty if series is None else _read_cells(rule, series, problems))
        elif series is None:
            numbers.append(np.full(len(table), np.nan))
        else:
            numbers.append(_read_numbers(rule, series, problems))
    names = [rule.field.name for rule in rules]
    suggestions = NameSuggestions(names)
    for name in table.columns:
        if name not in names:
            expected = f"no such field{suggestions.hint(name)}"
            problems.append(FieldProblem(0, name, None, expected))
    columns = Columns(
        _stack(numbers, len(table), np.float64), _stack(texts, len(table), object), tensors
    )
    return columns, sorted(problems, key=lambda problem: problem.row)[:MOST_PROBLEMS]


def _read_numbers(
    rule: FieldRule, series: nw.Series[Any], problems: list[FieldProblem]
) -> NDArray[np.float64]:
    is_number = series.dtype.is_integer() or series.dtype.is_float()
    if rule.field.kind not in ("number", "integer") or not is_number:
        cells = _read_cells(rule, series, problems)
        floats = [to_microseconds(c) if isinstance(c, dt.datetime) else c for c in cells]
        return np.array(floats, dtype=np.float64)  # None becomes NaN
    numbers = column_floats(series)
    low, high = rule.bounds or (-EXACT, EXACT)
    doubtful = ~(np.abs(numbers) < EXACT) | (numbers < low) | (numbers > high)
    if rule.field.nullable:
        doubtful &= ~np.isnan(numbers)
    if rule.field.kind == "integer":
        doubtful |= np.floor(numbers) < numbers
    rows = np.flatnonzero(doubtful).tolist()
    if rows:
        _judge(rule, rows, cell_values(series[rows]), problems)
    return numbers


def _read_cells(rule: FieldRule, series: nw.Series[Any], problems: list[FieldProblem]) -> list[Any]:
    import narwhals as nw

    cells = cell_values(series)
    has_strings = series.dtype in (nw.String, nw.Categorical, nw.Enum)
    if not has_strings or rule.field.kind not in ("category", "text"):
        return _judge(rule, range(len(cells)), cells, problems)
    # Strings repeat, so each distinct one is judged once.
    refused = {value for value in set(cells) if isinstance(rule.judge(value), RefusedValue)}
    rows = [row for row, value in enumerate(cells) if value in refused] if refused else []
    _judge(rule, rows, [cells[row] for row in rows], problems)
    return cells


def _judge(
    rule: FieldRule, rows: Sequence[int], cells: Sequence[Any], problems: list[FieldProblem]
) -> list[Any]:
    """Return each cell as a row holds it, None if it is refused."""
    judged = list(map(rule.judge, cells))
    refused = [place for place, value in enumerate(judged) if isinstance(value, RefusedValue)]
    name = rule.field.name
    for place in refused[:MOST_PROBLEMS]:
        shown, expected = printable_value(cells[place]), judged[place].expected
        problems.append(FieldProblem(rows[place], name, shown, expected))
    for place in refused:
        judged[place] = None
    return judged


def _stack(columns: Sequence[Any], rows: int, dtype: Any) -> NDArray[Any]:
    matrix = np.empty((rows, len(columns)), dtype=dtype)
    for place, column in enumerate(columns):
        matrix[:, place] = column
    return matrix
