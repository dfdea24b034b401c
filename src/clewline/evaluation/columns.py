"""The columns of a table as a plain rule may look at them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.signature import frames, instant


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of quantities or instants; null is NaN."""

    name: str
    values: NDArray[np.float64]  # shape (n,)
    instants: bool = False

    def take(self, rows: NDArray[np.int64]) -> Numbers:
        """Some of the rows."""
        return Numbers(self.name, self.values[rows], self.instants)


@dataclass(frozen=True, slots=True)
class Levels:
    """A column of texts or booleans; null is None."""

    name: str
    values: NDArray[np.object_]  # shape (n,)

    def take(self, rows: NDArray[np.int64]) -> Levels:
        """Some of the rows."""
        return Levels(self.name, self.values[rows])


Column = Numbers | Levels


def read(frame: Any, *, target: str) -> dict[str, Column]:
    """Read every column but the target that holds quantities, instants, texts or booleans."""
    table = frames.opened(frame)
    found = (_column(table[name]) for name in table.columns if name != target)
    return {column.name: column for column in found if column is not None}


def _column(series: Any) -> Column | None:
    if series.dtype.is_integer() or series.dtype.is_float():
        return Numbers(series.name, frames.floats(series))
    cells = frames.cells(series)
    present = [value for value in cells if value is not None]
    if present and all(isinstance(value, dt.date) for value in present):
        micros = [np.nan if value is None else float(instant.micros(value)) for value in cells]
        return Numbers(series.name, np.array(micros), instants=True)
    if present and all(isinstance(value, str | bool) for value in present):
        levels = np.empty(len(cells), dtype=object)
        levels[:] = cells
        return Levels(series.name, levels)
    return None
