"""The columns of a table as a plain rule may look at them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.signature import dataframes, timestamps


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """A column of quantities or instants; null is NaN."""

    name: str
    values: NDArray[np.float64]  # shape (n,)
    instants: bool = False

    def take(self, rows: NDArray[np.int64]) -> NumericColumn:
        """Some of the rows."""
        return NumericColumn(self.name, self.values[rows], self.instants)


@dataclass(frozen=True, slots=True)
class LevelColumn:
    """A column of texts or booleans; null is None."""

    name: str
    values: NDArray[np.object_]  # shape (n,)

    def take(self, rows: NDArray[np.int64]) -> LevelColumn:
        """Some of the rows."""
        return LevelColumn(self.name, self.values[rows])


BaselineColumn = NumericColumn | LevelColumn


def read(frame: Any, *, target: str) -> dict[str, BaselineColumn]:
    """Read every column but the target that holds quantities, instants, texts or booleans."""
    table = dataframes.open_table(frame)
    found = (_column(table[name]) for name in table.columns if name != target)
    return {column.name: column for column in found if column is not None}


def _column(series: Any) -> BaselineColumn | None:
    if series.dtype.is_integer() or series.dtype.is_float():
        return NumericColumn(series.name, dataframes.column_floats(series))
    cells = dataframes.cell_values(series)
    present = [value for value in cells if value is not None]
    if present and all(isinstance(value, dt.date) for value in present):
        micros = [
            np.nan if value is None else float(timestamps.to_microseconds(value)) for value in cells
        ]
        return NumericColumn(series.name, np.array(micros), instants=True)
    if present and all(isinstance(value, str | bool) for value in present):
        levels = np.empty(len(cells), dtype=object)
        levels[:] = cells
        return LevelColumn(series.name, levels)
    return None
