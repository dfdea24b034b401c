"""
Tables as the arrays that travel, and arrays as the table that an estimator was trained on.

An estimator sees the frame library and the column types of its training table;
`TableLayout` keeps them, so that it sees a row rebuilt from `Columns` as it saw a training row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import NotSupported
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field, Signature

FrameKind = Literal["polars", "pandas", "numpy", "texts"]


class ColumnLayout(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of the training table."""

    dtype: str
    levels: tuple[str, ...] | None = None  # of a pandas category or a Polars Enum
    null: Literal["none", "nan"] = "none"  # how text columns of objects write null


class TableLayout(msgspec.Struct, frozen=True):
    """The frame library and the column types that an estimator was trained with."""

    frame: FrameKind
    columns: dict[str, ColumnLayout]

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """The levels that column types declare, by column, in the order of the table."""
        return {name: each.levels for name, each in self.columns.items() if each.levels}

    def with_levels(self, levels: Mapping[str, tuple[str, ...]]) -> TableLayout:
        """Return the layout with other levels of some columns."""
        changed = {
            name: msgspec.structs.replace(self.columns[name], levels=found)
            for name, found in levels.items()
        }
        return TableLayout(self.frame, self.columns | changed)

    def null_of(self, name: str) -> float | None:
        """Return the value that stands for null in a text column."""
        return None if self.columns[name].null == "none" else float("nan")


def layout_of(table: Any, signature: Signature, frame: FrameKind) -> TableLayout:
    """Read the column types of a pandas or Polars table; `frame` says what the estimator takes."""
    read = _polars_column if type(table).__module__.startswith("polars") else _pandas_column
    return TableLayout(frame, {field.name: read(table[field.name]) for field in signature.fields})


def columns_of(table: Any, signature: Signature) -> Columns:
    """Take the fields of a pandas or Polars table as arrays; other columns are left."""
    numbers = np.empty((len(table), len(signature.numeric)), dtype=np.float64)
    for index, field in enumerate(signature.numeric):
        numbers[:, index] = _numbers(table[field.name], field)
    texts = np.empty((len(table), len(signature.textual)), dtype=object)
    for index, field in enumerate(signature.textual):
        texts[:, index] = [v if isinstance(v, str) else None for v in table[field.name].to_list()]
    return Columns(numbers, texts)


def frame_of(
    columns: Columns, signature: Signature, layout: TableLayout, *, floats: bool = False
) -> Any:
    """
    Rebuild the table that an estimator takes.

    Args:
        columns: Checked rows.
        signature: Names the columns.
        layout: The library and types of the training table.
        floats: Leave numbers as float64, so that rows between two integers can be asked.
    """
    series: dict[str, NDArray[Any]] = {
        f.name: columns.numbers[:, i] for i, f in enumerate(signature.numeric)
    }
    series |= {f.name: columns.texts[:, i] for i, f in enumerate(signature.textual)}
    if layout.frame == "texts":
        return series[signature.fields[0].name].tolist()
    if layout.frame == "numpy":
        values = [series[field.name] for field in signature.fields]
        if all(field.kind in NUMERIC for field in signature.fields):
            return np.column_stack(values).astype(np.float64)
        matrix = np.empty((len(columns), len(values)), dtype=object)
        for index, (field, column) in enumerate(zip(signature.fields, values, strict=True)):
            null = layout.null_of(field.name)
            matrix[:, index] = [null if v is None else v for v in column.tolist()]
        return matrix
    if layout.frame == "polars":
        return _polars_frame(series, signature, layout, floats)
    import pandas as pd

    return pd.DataFrame(
        {
            field.name: _pandas_series(series[field.name], field, layout, floats)
            for field in signature.fields
        }
    )


def original_frame(table: Any, signature: Signature, frame: FrameKind) -> Any:
    """Return a table's fields, in order and unchanged, as the estimator takes them."""
    if frame == "texts":
        return table[signature.fields[0].name].to_list()
    chosen = table[[field.name for field in signature.fields]]
    return chosen.to_numpy() if frame == "numpy" else chosen


def _polars_column(series: Any) -> ColumnLayout:
    import polars as pl

    if isinstance(series.dtype, pl.Enum):
        return ColumnLayout("Enum", tuple(series.dtype.categories.to_list()))
    return ColumnLayout(str(series.dtype))


def _pandas_column(series: Any) -> ColumnLayout:
    dtype = str(series.dtype)
    if dtype == "category":
        levels = series.cat.categories.tolist()
        if not all(isinstance(level, str) for level in levels):
            return ColumnLayout(dtype, None, "nan")
        return ColumnLayout(dtype, tuple(levels), "nan")
    if dtype == "object":
        nulls = series[series.isna()]
        return ColumnLayout(dtype, None, "nan" if any(v is not None for v in nulls) else "none")
    return ColumnLayout(dtype, None, "nan")


def _numbers(series: Any, field: Field) -> NDArray[np.float64]:
    import narwhals as nw

    column = nw.from_native(series, series_only=True)
    if field.kind == "datetime":
        column = column.dt.timestamp("us")
    if column.dtype == nw.Object:
        values = [float("nan") if v is None else float(v) for v in column.to_list()]
        return np.array(values, dtype=np.float64)
    return np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)


def _polars_frame(
    values: dict[str, NDArray[Any]], signature: Signature, layout: TableLayout, floats: bool
) -> Any:
    import polars as pl

    out = {}
    for field in signature.fields:
        dtype = _polars_dtype(layout.columns[field.name], field)
        column = values[field.name]
        if field.kind not in NUMERIC:
            out[field.name] = pl.Series(column.tolist(), dtype=pl.String).cast(dtype, strict=False)
            continue
        series = pl.Series(column).fill_nan(None)
        if field.kind == "datetime":
            out[field.name] = series.cast(pl.Int64).cast(pl.Datetime("us")).cast(dtype)
        elif not floats or field.kind == "boolean" or dtype == pl.Float32:
            out[field.name] = series.cast(dtype)
        else:
            out[field.name] = series
    return pl.DataFrame(out)


def _polars_dtype(column: ColumnLayout, field: Field) -> Any:
    import polars as pl

    if column.dtype == "Enum":
        return pl.Enum(list(column.levels or ()))
    if column.dtype.startswith("Datetime"):
        zone = column.dtype.partition("time_zone=")[2].strip("')")
        return pl.Datetime("us", None if zone in ("", "None") else zone)
    name = column.dtype.partition("(")[0]
    dtype = getattr(pl, name, None)
    if dtype is None or not isinstance(dtype, type):
        raise NotSupported(
            f"The column {field.name!r} was trained as Polars {column.dtype}, "
            "which a request cannot be turned back into.",
            "Cast it to a number, boolean, text or datetime before training.",
        )
    return dtype


def _pandas_series(values: NDArray[Any], field: Field, layout: TableLayout, floats: bool) -> Any:
    import pandas as pd

    column = layout.columns[field.name]
    if field.kind == "datetime":
        dtype: Any = pd.api.types.pandas_dtype(column.dtype)
        missing = np.isnan(values)
        ticks = np.where(missing, 0, values).astype(np.int64).astype("datetime64[us]")
        ticks[missing] = np.datetime64("NaT", "us")
        moments = pd.Series(ticks)
        has_zone = getattr(dtype, "tz", None) is not None
        return (moments.dt.tz_localize("UTC") if has_zone else moments).astype(dtype)
    if field.kind in NUMERIC:
        typed: Any = "float64" if column.dtype == "object" else column.dtype
        if floats and field.kind != "boolean":
            return pd.Series(values.astype("float32") if typed.lower() == "float32" else values)
        holds_null = typed[0].isupper() or typed.startswith(("float", "boolean"))
        keeps_type = holds_null or not np.isnan(values).any()
        return pd.Series(values).astype(typed) if keeps_type else pd.Series(values)
    if column.dtype == "category":
        known = set(column.levels or ())  # others are null, as they have no code
        levels = [value if value in known else None for value in values.tolist()]
        return pd.Series(pd.Categorical(levels, categories=column.levels))
    null = layout.null_of(field.name)
    texts = [null if v is None else v for v in values.tolist()]
    return pd.Series(texts, dtype="object" if column.dtype == "object" else column.dtype)
