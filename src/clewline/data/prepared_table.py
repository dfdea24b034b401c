"""A table as Polars columns, each with the kind that an assessment treats it as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.signature import dataframes

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["number", "boolean", "category", "text", "datetime", "other"]
Codes = NDArray[np.int64]

BINS = 32
LARGEST = 1e150
LEVELS = 64
_TEXT_LENGTH = 40  # characters on average, from which strings are texts
_TEXT_SHARE = 0.5  # of different values


@dataclass(frozen=True, slots=True)
class PreparedColumn:
    """
    A column without NaN: numbers and strings as they are, everything else as strings.

    Date-times are microseconds since the epoch, booleans 0 and 1.
    """

    name: str
    kind: Kind
    dtype: str
    values: pl.Series

    def take(self, rows: NDArray[np.int64]) -> PreparedColumn:
        """Return some rows."""
        return PreparedColumn(self.name, self.kind, self.dtype, self.values.gather(rows))


@dataclass(frozen=True, slots=True)
class PreparedTable:
    """The columns of a table, all of `rows` values."""

    rows: int
    columns: dict[str, PreparedColumn]

    def take(self, rows: NDArray[np.int64]) -> PreparedTable:
        """Return some rows."""
        return PreparedTable(len(rows), {n: c.take(rows) for n, c in self.columns.items()})

    def sample(self, most: int, seed: int) -> PreparedTable:
        """Return up to `most` rows, none twice, in their order."""
        return self if self.rows <= most else self.take(draw_rows(self.rows, most, seed))


def draw_rows(rows: int, most: int, seed: int) -> NDArray[np.int64]:
    """Draw up to `most` row numbers, none twice, ascending."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def prepare_table(frame: Any) -> PreparedTable:
    """
    Read a Polars, pandas or Arrow table.

    Raises:
        InvalidInput: It is not an eager table, or two columns have one name.
    """
    table = dataframes.open_table(frame)
    columns = {name: _prepare(name, _as_polars(table[name])) for name in table.columns}
    return PreparedTable(len(table), columns)


def _as_polars(series: Any) -> pl.Series:
    import polars as pl

    try:
        found: pl.Series = series.to_polars()
    except Exception as error:
        # Objects of several types in one column of pandas. Arrow and Polars raise their own.
        if str(series.dtype) != "Object":
            raise InvalidInput(f"The column {series.name!r} cannot be read: {error}.") from error
        cells = dataframes.cell_values(series)
        return pl.Series(series.name, cells, dtype=pl.Object)
    return found


def _prepare(name: str, series: pl.Series) -> PreparedColumn:
    import polars as pl

    dtype, written = series.dtype, str(series.dtype)
    if dtype == pl.Boolean:
        return PreparedColumn(name, "boolean", written, series.cast(pl.Int8))
    if dtype.is_float() or dtype.is_decimal():
        numbers = series.cast(pl.Float64, strict=False).fill_nan(None)
        return PreparedColumn(name, "number", written, numbers)
    if dtype.is_integer():
        return PreparedColumn(name, "number", written, series)
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        microseconds = series.cast(pl.Datetime("us")).to_physical()
        return PreparedColumn(name, "datetime", written, microseconds)
    if dtype.is_temporal():
        return PreparedColumn(name, "number", written, series.to_physical().cast(pl.Int64))
    if dtype == pl.Null:
        return PreparedColumn(name, "other", written, series.cast(pl.String))
    if isinstance(dtype, pl.Categorical | pl.Enum) or dtype == pl.String:
        texts = series.cast(pl.String)
        return PreparedColumn(name, _kind_of_texts(texts), written, texts)
    texts = pl.Series(
        name, [None if value is None else _write(value) for value in series], dtype=pl.String
    )
    return PreparedColumn(name, "other", written, texts)


def _write(value: Any) -> str:
    return str(value.to_list()) if hasattr(value, "to_list") else str(value)


def _kind_of_texts(texts: pl.Series) -> Kind:
    head = texts.head(10_000).drop_nulls()
    if not len(head):
        return "category"
    length = float(head.str.len_chars().mean() or 0.0)  # type: ignore[arg-type]
    is_text = length >= _TEXT_LENGTH and head.n_unique() > _TEXT_SHARE * len(head)
    return "text" if is_text else "category"


class Binning:
    """
    Groups of the values of a column, about equally many rows in each.

    Numbers and times are grouped by quantiles, levels stand for themselves as long as they are
    among the most frequent. Code 0 is null, code 1 every other level. Learned on one table, a
    binning can code another.
    """

    def __init__(self, column: PreparedColumn) -> None:
        self.numeric = column.kind in ("number", "boolean", "datetime")
        self.edges: NDArray[np.float64] = np.zeros(0)
        self.levels: list[str] = []
        known = column.values.drop_nulls()
        if self.numeric:
            numbers = known.to_numpy().astype(np.float64)
            if len(numbers):
                inner = np.linspace(0, 1, BINS + 1)[1:-1]
                self.edges = np.unique(np.quantile(numbers, inner, method="lower"))
        else:
            counts = known.alias("level").value_counts(name="rows")
            ordered = counts.sort("rows", "level", descending=[True, False])
            self.levels = ordered["level"].head(LEVELS).to_list()
        self.count = 2 + (len(self.edges) + 1 if self.numeric else len(self.levels))

    def codes(self, column: PreparedColumn) -> Codes:
        """Return the group of each row, shape (n,), from 0 to `count` - 1."""
        if self.numeric:
            numbers = floats(column)
            places = np.searchsorted(self.edges, numbers, side="left")
            return np.where(np.isnan(numbers), 0, 2 + places).astype(np.int64)
        import polars as pl

        numbers_of = dict(zip(self.levels, range(2, 2 + len(self.levels)), strict=True))
        if not numbers_of:
            coded = pl.Series([1], dtype=pl.Int64).new_from_index(0, len(column.values))
        else:
            coded = column.values.replace_strict(
                list(numbers_of), list(numbers_of.values()), default=1, return_dtype=pl.Int64
            )
        missing = column.values.is_null().to_numpy()
        return np.where(missing, 0, coded.to_numpy()).astype(np.int64)


def floats(column: PreparedColumn) -> NDArray[np.float64]:
    """
    Return numbers or times as float64, null as NaN; of strings their lengths.

    Finite numbers beyond 1e150 are cut there, so that their squares can be added up.
    """
    import polars as pl

    series = column.values
    if column.kind in ("category", "text", "other"):
        series = series.str.len_chars()
    numbers = np.asarray(series.cast(pl.Float64).fill_null(float("nan")).to_numpy())
    return np.where(np.isfinite(numbers), np.clip(numbers, -LARGEST, LARGEST), numbers)
