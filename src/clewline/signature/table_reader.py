"""
A table under the same rules as JSON rows.

Columns of a fitting type are checked whole; cells of any other column are
judged one by one, so that a table row and the same row as JSON get the same
verdict. NaN and NaT are null.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem
from clewline.signature import dataframes, timestamps
from clewline.signature.columns import Columns
from clewline.signature.field_rules import EXACT, FieldRule, Refusal, printable_value
from clewline.signature.json_rows import NameSuggestions

if TYPE_CHECKING:
    import narwhals as nw

MOST_PROBLEMS = 10_000
"""A table with more bad cells has this many of them named."""


def read_table(frame: Any, rules: Sequence[FieldRule]) -> tuple[Columns, list[FieldProblem]]:
    """
    Turn a table into arrays.

    Args:
        frame: A Polars, pandas or Arrow table; its columns in any order.
        rules: One a field, in the order of a row: numeric, textual, tensors.

    Returns:
        The arrays (meaningful where nothing was refused), and up to 10,000
        problems, by row, then field. A column that is missing or that the
        signature does not know is named once, at row 0.

    Raises:
        InvalidInput: It is not a table.
    """
    table = dataframes.open_table(frame)
    reading = _Reading(table)
    numbers: list[NDArray[np.float64]] = []
    texts: list[NDArray[np.object_]] = []
    tensors: dict[str, NDArray[np.generic]] = {}
    for rule in rules:
        if rule.field.kind == "tensor":
            tensors[rule.field.name] = reading.tensor(rule)
        elif rule.field.kind in ("category", "text"):
            texts.append(reading.texts(rule))
        else:
            numbers.append(reading.numbers(rule))
    columns = Columns(
        _stacked(numbers, len(table), np.float64), _stacked(texts, len(table), object), tensors
    )
    reading.strangers([rule.field.name for rule in rules])
    return columns, sorted(reading.problems, key=lambda problem: problem.row)[:MOST_PROBLEMS]


class _Reading:
    """One pass over a table's columns, which gathers problems."""

    def __init__(self, table: nw.DataFrame[Any]) -> None:
        self.table = table
        self.problems: list[FieldProblem] = []
        self._refused: Counter[str] = Counter()

    def numbers(self, rule: FieldRule) -> NDArray[np.float64]:
        series = self._column(rule)
        if series is None:
            return np.full(len(self.table), np.nan)
        if rule.field.kind in ("number", "integer") and _is_quantity(series):
            return self._quantities(rule, series)
        judged = self._judged(rule, series)
        return np.array([_as_float(value) for value in judged], dtype=np.float64)

    def texts(self, rule: FieldRule) -> NDArray[np.object_]:
        series = self._column(rule)
        texts = np.full(len(self.table), None, dtype=object)
        if series is not None:
            texts[:] = self._judged(rule, series)
        return texts

    def tensor(self, rule: FieldRule) -> NDArray[np.generic]:
        series, shape = self._column(rule), rule.field.shape or ()
        if series is None:
            return np.zeros((0, *shape), dtype=rule.field.dtype)
        judged = [value for value in self._judged(rule, series) if value is not None]
        return np.array(judged, dtype=rule.field.dtype).reshape((-1, *shape))

    def strangers(self, known: Sequence[str]) -> None:
        """Name the columns that the signature does not have."""
        nearest = NameSuggestions(known)
        for name in self.table.columns:
            if name not in known:
                expected = f"no such field{nearest.hint(name)}"
                self.problems.append(FieldProblem(0, name, None, expected))

    def _column(self, rule: FieldRule) -> nw.Series[Any] | None:
        if rule.field.name in self.table.columns:
            return self.table[rule.field.name]
        expected = f"{rule.expected}; the column is missing"
        self.problems.append(FieldProblem(0, rule.field.name, None, expected))
        return None

    def _quantities(self, rule: FieldRule, series: nw.Series[Any]) -> NDArray[np.float64]:
        numbers = dataframes.column_floats(series)
        rows = np.flatnonzero(_doubtful(rule, numbers)).tolist()
        if rows:
            self._judge(rule, rows, dataframes.cell_values(series[rows]))
        return numbers

    def _judged(self, rule: FieldRule, series: nw.Series[Any]) -> list[Any]:
        cells = dataframes.cell_values(series)
        if _is_text(series) and rule.field.kind in ("category", "text"):
            refused = {value for value in set(cells) if isinstance(rule.judge(value), Refusal)}
            rows = [row for row, value in enumerate(cells) if value in refused] if refused else []
            self._judge(rule, rows, [cells[row] for row in rows])
            return cells
        return self._judge(rule, range(len(cells)), cells)

    def _judge(self, rule: FieldRule, rows: Sequence[int], cells: Sequence[Any]) -> list[Any]:
        verdicts: list[Any] = []
        for row, value in zip(rows, cells, strict=True):
            verdict = rule.judge(value)
            if isinstance(verdict, Refusal):
                self._refuse(rule, row, value, verdict)
                verdict = None
            verdicts.append(verdict)
        return verdicts

    def _refuse(self, rule: FieldRule, row: int, value: Any, refusal: Refusal) -> None:
        name = rule.field.name
        self._refused[name] += 1
        if self._refused[name] <= MOST_PROBLEMS:
            self.problems.append(FieldProblem(row, name, printable_value(value), refusal.expected))


def _doubtful(rule: FieldRule, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Cells that must be judged one by one: null, infinite, large, fractional, outside."""
    low, high = rule.bounds or (-EXACT, EXACT)
    doubtful = ~(np.abs(numbers) < EXACT) | (numbers < low) | (numbers > high)
    if rule.field.nullable:
        doubtful &= ~np.isnan(numbers)
    if rule.field.kind == "integer":
        doubtful |= np.floor(numbers) < numbers
    return doubtful


def _stacked(columns: Sequence[NDArray[Any]], rows: int, dtype: Any) -> NDArray[Any]:
    matrix = np.empty((rows, len(columns)), dtype=dtype)
    for place, column in enumerate(columns):
        matrix[:, place] = column
    return matrix


def _as_float(value: Any) -> float:
    if value is None:
        return np.nan
    return (
        float(timestamps.to_microseconds(value)) if isinstance(value, dt.datetime) else float(value)
    )


def _is_quantity(series: nw.Series[Any]) -> bool:
    return series.dtype.is_integer() or series.dtype.is_float()


def _is_text(series: nw.Series[Any]) -> bool:
    import narwhals as nw

    return series.dtype in (nw.String, nw.Categorical, nw.Enum)
