"""Rules that a person can follow: one answer for every row, or one question about one field."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.signature import dataframes, timestamps

_LISTED_LEVELS = 6


@dataclass(frozen=True, slots=True)
class RuleColumn:
    """A column that a rule may ask about."""

    name: str
    values: NDArray[Any]  # shape (n,): float64, null NaN; or str and bool objects, null None
    is_datetime: bool = False  # then in microseconds since the epoch, UTC

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers or date-times."""
        return self.values.dtype != object

    def take(self, rows: NDArray[np.int64]) -> RuleColumn:
        """Return some of the rows."""
        return RuleColumn(self.name, self.values[rows], self.is_datetime)


Columns = dict[str, RuleColumn]


def read_columns(frame: Any, *, target: str) -> Columns:
    """Read every column of numbers, date-times, strings or booleans except the target."""
    table = dataframes.open_table(frame)
    found = (_read_column(table[name]) for name in table.columns if name != target)
    return {column.name: column for column in found if column is not None}


def _read_column(series: Any) -> RuleColumn | None:
    if series.dtype.is_integer() or series.dtype.is_float():
        return RuleColumn(series.name, dataframes.column_floats(series))
    cells = dataframes.cell_values(series)
    present = [value for value in cells if value is not None]
    if present and all(isinstance(value, dt.date) for value in present):
        count = timestamps.to_microseconds
        values = np.array([np.nan if value is None else float(count(value)) for value in cells])
        return RuleColumn(series.name, values, is_datetime=True)
    if present and all(isinstance(value, str | bool) for value in present):
        return RuleColumn(series.name, np.array(cells, dtype=object))
    return None


@dataclass(frozen=True, slots=True)
class SimpleRule:
    """
    A rule that sorts rows into groups, each of which gets one answer.

    Without a field all rows are in group 0. With a threshold, group 1 holds the rows above it
    (or up to it). With levels, each set of levels has a group, from 1. Every other row, and
    every null, is in group 0.
    """

    field: str = ""
    threshold: float | None = None
    above: bool = True
    is_datetime: bool = False
    level_sets: tuple[tuple[Any, ...], ...] = ()

    def groups(self, columns: Columns, rows: int) -> NDArray[np.int64]:
        """Return the group of each row, shape (n,); all 0 if the column is missing."""
        column = columns.get(self.field)
        if column is None or column.is_numeric != (self.threshold is not None):
            return np.zeros(rows, dtype=np.int64)
        if self.threshold is not None:
            compare = np.greater if self.above else np.less_equal
            return np.asarray(compare(column.values, self.threshold)).astype(np.int64)
        group = {level: n for n, levels in enumerate(self.level_sets, 1) for level in levels}
        return np.array([group.get(value, 0) for value in column.values.tolist()], dtype=np.int64)

    def describe(self, answers: list[str]) -> str:
        """Write the rule with one answer per group."""
        if not self.field:
            return f"always {answers[0]}"
        if self.threshold is not None:
            write = timestamps.format_microseconds if self.is_datetime else "{:.15g}".format
            questions = [f"{'>' if self.above else '<='} {write(self.threshold)}"]
        else:
            questions = [_describe_levels(levels) for levels in self.level_sets]
        parts = [f"{self.field} {q} → {a}" for q, a in zip(questions, answers[1:], strict=True)]
        return f"{'; '.join(parts)}{';' if len(parts) > 1 else ','} else {answers[0]}"


def _describe_levels(levels: tuple[Any, ...]) -> str:
    names = [str(level).lower() if isinstance(level, bool) else str(level) for level in levels]
    if len(names) == 1:
        return f"is {names[0]}"
    more = f", … {len(names)} in all" if len(names) > _LISTED_LEVELS else ""
    return f"in {{{', '.join(names[:_LISTED_LEVELS])}{more}}}"
