"""
The columns of a test table as arrays: numbers as float64, everything else as codes of levels.

A million texts are a million small integers and a short list here, so that whatever groups rows
(rules, slices, protected fields) counts instead of comparing texts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, did_you_mean
from clewline.evaluation.metrics import Integers
from clewline.formatting import format_list
from clewline.signature import dataframes, timestamps

if TYPE_CHECKING:
    import narwhals as nw

Level = str | bool
MOST_VALUES = 10
"""A numeric column of more values is grouped by quartiles."""


@dataclass(frozen=True, slots=True)
class EvaluatedColumn:
    """A column of a test table."""

    name: str
    values: NDArray[Any]  # shape (n,): float64, null NaN; or int64 codes of levels, null -1
    levels: tuple[Level, ...] | None = None  # None: numbers
    is_datetime: bool = False  # then in microseconds since the epoch, UTC

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers or date-times."""
        return self.levels is None

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """Where the value is null, shape (n,)."""
        return np.asarray(np.isnan(self.values) if self.levels is None else self.values < 0)

    def take(self, rows: Integers) -> EvaluatedColumn:
        """Return some of the rows."""
        return EvaluatedColumn(self.name, self.values[rows], self.levels, self.is_datetime)

    def cells(self, rows: Integers) -> list[float | Level | None]:
        """Return some of the values as a person reads them: levels, and None for null."""
        if self.levels is None:
            return [None if value != value else value for value in self.values[rows].tolist()]
        return [None if code < 0 else self.levels[code] for code in self.values[rows].tolist()]

    def codes_of(self, levels: Iterable[object]) -> list[int]:
        """Return the codes of those levels that the column has."""
        place: dict[tuple[type, object], int] = {
            (type(level), level): code for code, level in enumerate(self.levels or ())
        }
        found = (place.get((type(level), level)) for level in levels)
        return [code for code in found if code is not None]

    def groups(self) -> tuple[Integers, list[str]]:
        """
        Group the rows by value.

        Returns:
            The group of each row, shape (n,), and the name of each group. Only values that
            occur have a group; null has its own, "null", at the end.
        """
        if self.levels is None:
            present = ~self.is_null
            distinct, inverse = np.unique(self.values[present], return_inverse=True)
            codes = np.full(len(self.values), len(distinct), dtype=np.int64)
            codes[present] = inverse
            names = [self.format_number(value) for value in distinct.tolist()]
        else:
            counts = np.bincount(self.values[self.values >= 0], minlength=len(self.levels))
            place = np.full(len(self.levels) + 1, (counts > 0).sum(), dtype=np.int64)
            place[:-1][counts > 0] = np.arange((counts > 0).sum())
            codes = place[self.values]  # null, -1, is the last place
            names = [level_name(self.levels[code]) for code in np.flatnonzero(counts)]
        return codes, [*names, "null"] if self.is_null.any() else names

    def format_number(self, value: float) -> str:
        """Write a number of the column, or a moment if it holds date-times."""
        return timestamps.format_microseconds(value) if self.is_datetime else f"{value:.15g}"


EvaluatedColumns = dict[str, EvaluatedColumn]


def require_column(columns: EvaluatedColumns, name: str) -> EvaluatedColumn:
    """
    Return a column.

    Raises:
        InvalidInput: There is none, or it holds values of no kind; names the nearest.
    """
    if name not in columns:
        raise InvalidInput(
            f"The test table has no column {name!r} of numbers, date-times, texts or booleans.",
            did_you_mean(name, list(columns), f"Its columns are {format_list(columns)}."),
        )
    return columns[name]


def value_groups(column: EvaluatedColumn) -> tuple[Integers, list[str]]:
    """
    Group rows by value; numbers of more than `MOST_VALUES` values by their quartiles.

    Returns:
        The group of each row, shape (n,), and the name of each group.
    """
    present = ~column.is_null
    if not column.is_numeric or len(np.unique(column.values[present])) <= MOST_VALUES:
        return column.groups()
    edges = np.unique(np.quantile(column.values[present], [0.25, 0.5, 0.75], method="lower"))
    bands = np.searchsorted(edges, column.values).astype(np.int64)  # an edge belongs below
    bands[~present] = len(edges) + 1
    written = [column.format_number(edge) for edge in edges.tolist()]
    between = [f"> {low} to {high}" for low, high in pairwise(written)]
    names = [f"<= {written[0]}", *between, f"> {written[-1]}", "null"]
    used, codes = np.unique(bands, return_inverse=True)
    return codes, [names[band] for band in used]


def level_name(level: object) -> str:
    """Write a level; booleans as JSON does."""
    return str(level).lower() if isinstance(level, bool) else str(level)


def read_columns(frame: Any, *, target: str | None = None) -> EvaluatedColumns:
    """Read every column of numbers, date-times, texts or booleans except the target."""
    table = dataframes.open_table(frame)
    read = (read_column(table[name]) for name in table.columns if name != target)
    return {column.name: column for column in read if column is not None}


def read_column(series: nw.Series[Any]) -> EvaluatedColumn | None:
    """Read a column; None if it holds neither numbers, date-times, texts, booleans nor nulls."""
    import narwhals as nw

    kind = series.dtype
    if kind.is_integer() or kind.is_float():
        return EvaluatedColumn(series.name, dataframes.column_floats(series))
    if kind == nw.Datetime or kind == nw.Date:
        moments = series.cast(nw.Datetime("us")) if kind == nw.Date else series
        missing = dataframes.null_mask(moments)
        counted = moments.dt.timestamp("us")
        counted = counted.fill_null(0) if missing.any() else counted
        values = np.where(missing, np.nan, np.asarray(counted.to_numpy(), dtype=np.float64))
        return EvaluatedColumn(series.name, values, is_datetime=True)
    coded = _codes(series)
    if coded is None:
        return None
    codes, found = coded
    if found and all(isinstance(level, dt.date) for level in found):
        counts = np.array([*map(float, map(timestamps.to_microseconds, found)), np.nan])  # type: ignore[arg-type]
        return EvaluatedColumn(series.name, counts[codes], is_datetime=True)
    if not all(isinstance(level, str | bool) for level in found):
        return None
    order = sorted(range(len(found)), key=lambda code: (str(found[code]), str(type(found[code]))))
    place = np.empty(len(found) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(found)), -1
    return EvaluatedColumn(series.name, place[codes], tuple(found[code] for code in order))  # type: ignore[misc]


def _codes(series: nw.Series[Any]) -> tuple[Integers, list[Hashable]] | None:
    """Return the code of each row, null -1, and the values that occur; None if not hashable."""
    import polars as pl

    native = series.to_native()
    if type(native).__module__.partition(".")[0] == "pandas":
        import pandas as pd

        try:
            codes, distinct = pd.factorize(native)
        except TypeError:
            return None
        return codes.astype(np.int64), distinct.tolist()
    values = native if isinstance(native, pl.Series) else pl.Series(pl.from_arrow(native))
    if values.dtype == pl.Boolean:
        truths: list[Hashable] = [value for value in (False, True) if (values == value).any()]
        codes = (values.cast(pl.Int64) - (0 if False in truths else 1)).fill_null(-1)
        return codes.to_numpy(), truths
    if values.dtype == pl.Null:
        return np.full(len(values), -1), []
    if values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return None
    texts = values.cast(pl.String)
    found: list[str] = texts.drop_nulls().unique().sort().to_list()
    codes = texts.cast(pl.Enum(found)).to_physical().cast(pl.Int64).fill_null(-1)
    return codes.to_numpy(), list(found)
