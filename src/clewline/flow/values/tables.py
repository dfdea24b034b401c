"""
Polars and pandas tables: their canonical bytes and their formats.

A column's canonical bytes are its name, its dtype, which of its rows are null,
and its values with zero under nulls. They do not depend on chunks, on the codes
of categories, on what lies under a null, or on which bits make a NaN.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from clewline.entry_points import install_command
from clewline.errors import IntegrityError, NotStorable, NotSupported
from clewline.flow.values.arrays import canonical_bytes
from clewline.flow.values.pieces import Undigestible, Walk, framed, joined, text_bytes

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

ROWS_AT_ONCE = 1 << 20
"""Texts are joined in pieces of this many rows, to bound memory; the digest does not see it."""

ROUND_TRIP = frozenset({"string", "bytes", "boolean", "date", "decimal", "empty"})
"""What an object column of pandas may hold: Arrow gives these back as they were."""


def table_piece(value: Any, walk: Walk) -> bytes | None:
    """The canonical piece of a table or a column; None for another object of these libraries."""
    library, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if library == "polars" and kind == "DataFrame":
        head = framed("height", b"%d" % value.height)
        return joined("polars", (head, *map(column, value.get_columns())))
    if library == "polars" and kind == "Series":
        return joined("polars series", (column(value),))
    if library == "pandas" and kind == "DataFrame":
        return pandas_frame(value, walk)
    if library == "pandas" and kind == "Series":
        parts = (
            walk.piece(value.name),
            pandas_index(value.index, walk),
            pandas_values(value, walk),
        )
        return joined("pandas series", parts)
    if library == "pandas" and kind.endswith("Index"):
        return pandas_index(value, walk)
    if library == "pyarrow" and kind == "Table":
        return arrow_table(value)
    return None


# ── Polars ──────────────────────────────────────────────────────────────────


def column(series: pl.Series) -> bytes:
    """The canonical piece of one Polars column."""
    name = framed("name", text_bytes(series.name))
    return joined("column", (name, framed("dtype", dtype_text(series.dtype)), values(series)))


def dtype_text(dtype: pl.DataType) -> bytes:
    """A dtype by its logical content: which registry gives a category its code is none."""
    import polars as pl

    if isinstance(dtype, pl.Categorical):
        return b"Categorical"
    if isinstance(dtype, pl.List):
        return b"List(%s)" % dtype_text(inner_dtype(dtype))
    if isinstance(dtype, pl.Array):
        return b"Array(%s,%d)" % (dtype_text(inner_dtype(dtype)), dtype.size)
    if isinstance(dtype, pl.Struct):
        fields = (f"{field.name!r}:".encode() + dtype_text(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
        return b"Struct(%s)" % b",".join(fields)
    return text_bytes(repr(dtype))


def inner_dtype(dtype: pl.List | pl.Array) -> pl.DataType:
    """The dtype of the elements, as an instance."""
    inner = dtype.inner
    return inner() if isinstance(inner, type) else inner


def values(series: pl.Series) -> bytes:
    """The canonical piece of a column's values: length, nulls, content."""
    import polars as pl

    dtype, nulls = series.dtype, series.is_null()
    length = framed("length", b"%d" % len(series))
    valid = framed("nulls", nulls.to_numpy().tobytes() if series.null_count() else b"")
    if isinstance(dtype, pl.List):
        lengths = series.list.len().fill_null(0)
        inner = series.explode(empty_as_null=False, keep_nulls=False)
        content = framed("lengths", numbers(lengths)) + values(inner)
    elif isinstance(dtype, pl.Array):
        content = values(series.drop_nulls().arr.to_list().explode(empty_as_null=False))
    elif isinstance(dtype, pl.Struct):
        content = b"".join(values(under(series, nulls, field.name)) for field in dtype.fields)
    else:
        content = framed("values", scalars(series))
    return joined("values", (length, valid, content))


def under(series: pl.Series, nulls: pl.Series, name: str) -> pl.Series:
    """A field of a struct column, null where the struct is."""
    import polars as pl

    field = series.struct.field(name)
    return pl.select(pl.when(nulls).then(None).otherwise(field)).to_series()


def scalars(series: pl.Series) -> bytes:
    """The bytes, or their digest, of a column without inner columns."""
    import polars as pl

    dtype = series.dtype
    if dtype == pl.Null:
        return b""
    if isinstance(dtype, pl.Categorical | pl.Enum | pl.Decimal | pl.Int128 | pl.UInt128):
        return texts(series.cast(pl.String))
    if dtype == pl.String:
        return texts(series)
    if dtype == pl.Binary:
        return texts(series.bin.encode("hex"))
    if dtype == pl.Boolean:
        return numbers(series.cast(pl.UInt8).fill_null(0))
    if dtype.is_temporal():
        return numbers(series.to_physical().fill_null(0))
    if dtype.is_numeric():
        return numbers(series.fill_null(0))
    raise Undigestible(f"polars column {series.name!r} of dtype {dtype}", "has no canonical bytes")


def numbers(series: pl.Series) -> bytes:
    """Little-endian bytes of a numeric column without nulls."""
    return canonical_bytes(series.rechunk().to_numpy())


def texts(series: pl.Series) -> bytes:
    """A digest of the lengths in bytes and of all texts, one behind the other."""
    series = series.fill_null("")
    hasher = blake3(numbers(series.str.len_bytes()))
    for start in range(0, len(series), ROWS_AT_ONCE):
        piece: str = series.slice(start, ROWS_AT_ONCE).str.join("").item()
        hasher.update(piece.encode())
    return hasher.digest()


# ── pandas and Arrow ────────────────────────────────────────────────────────


def pandas_frame(frame: pd.DataFrame, walk: Walk) -> bytes:
    """The canonical piece of a pandas frame: labels, index, columns."""
    columns = (pandas_values(frame.iloc[:, at], walk) for at in range(frame.shape[1]))
    labels = joined("labels", map(walk.piece, frame.columns.tolist()))
    names = walk.piece(list(frame.columns.names))
    return joined("pandas", (labels, names, pandas_index(frame.index, walk), *columns))


def pandas_index(index: Any, walk: Walk) -> bytes:
    """The canonical piece of an index, level by level."""
    levels = (
        pandas_values(index.get_level_values(level).to_series(), walk)
        for level in range(index.nlevels)
    )
    frequency = walk.piece(getattr(index, "freqstr", None))
    return joined("index", (walk.piece(list(index.names)), frequency, *levels))


def pandas_values(series: pd.Series[Any], walk: Walk) -> bytes:
    """The canonical piece of one pandas column: dtype, nulls, values."""
    dtype = framed("dtype", text_bytes(str(series.dtype)))
    if str(series.dtype) == "category":
        categories = pandas_index(series.cat.categories, walk)
        ordered, codes = walk.piece(bool(series.cat.ordered)), series.cat.codes.to_numpy()
        content = walk.piece(codes.astype("<i8"))
        return joined("category", (dtype, categories, ordered, content))
    if series.dtype == object:
        missing = series.isna().to_numpy()
        items = (None if gone else item for gone, item in zip(missing, series, strict=True))
        return joined("objects", map(walk.piece, items))
    return joined("values", (dtype, values(as_polars(series))))


def as_polars(series: pd.Series[Any]) -> pl.Series:
    """A pandas column through Arrow, so that both libraries' columns are read by one code."""
    import polars as pl

    pyarrow = arrow()
    try:
        converted = pl.from_arrow(pyarrow.Array.from_pandas(series.reset_index(drop=True)))
    except (pyarrow.ArrowException, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise Undigestible(f"pandas column of dtype {series.dtype}", f"({error})") from error
    assert isinstance(converted, pl.Series)
    return converted


def arrow_table(table: Any) -> bytes:
    """The canonical piece of an Arrow table, read as Polars reads it."""
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return joined("arrow", map(column, frame.get_columns()))


def arrow() -> Any:
    """PyArrow, which pandas tables need."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise NotSupported(
            "A pandas table is stored through pyarrow, which is not installed.",
            install_command("pandas"),
        ) from error
    return pyarrow


# ── formats ─────────────────────────────────────────────────────────────────


def save_polars(frame: pl.DataFrame) -> bytes:
    """A Polars frame as an Arrow IPC file."""
    buffer = io.BytesIO()
    frame.rechunk().write_ipc(buffer, compression="lz4")
    return buffer.getvalue()


def load_polars(data: bytes) -> pl.DataFrame:
    """A Polars frame from an Arrow IPC file."""
    import polars as pl

    try:
        return pl.read_ipc(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(error) from error


def save_pandas(frame: pd.DataFrame) -> bytes:
    """A pandas frame, its index included, as an Arrow IPC stream."""
    pyarrow = arrow()
    try:
        table = pyarrow.Table.from_pandas(frame)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise NotStorable(
            f"A pandas table cannot be stored: {error}.",
            "Give each column one type with `astype`.",
        ) from error
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with pyarrow.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def series_frame(series: pd.Series[Any]) -> pd.DataFrame:
    """A pandas series as a frame of one column; its own name is kept elsewhere."""
    return series.to_frame("values")


def load_pandas(data: bytes, frequency: str | None) -> pd.DataFrame:
    """A pandas frame from an Arrow IPC stream; `frequency` is that of its index."""
    pyarrow = arrow()
    try:
        with pyarrow.ipc.open_stream(data) as reader:
            frame: pd.DataFrame = reader.read_all().to_pandas()
    except (pyarrow.ArrowException, ValueError) as error:
        raise unreadable(error) from error
    if frequency is not None:
        frame.index.freq = frequency  # type: ignore[attr-defined]
    return frame


def unstorable(frame: pd.DataFrame) -> Iterator[str]:
    """What in a pandas frame Arrow would give back as something else, in words."""
    pandas = sys.modules["pandas"]
    kinds = {type(label).__name__ for label in frame.columns}
    if len(kinds) > 1:
        yield f"its column names are of several types, {' and '.join(sorted(kinds))}"
    if not frame.columns.is_unique:
        yield f"the column name {frame.columns[frame.columns.duplicated()][0]!r} stands twice"
    for at, label in enumerate(frame.columns):
        series = frame.iloc[:, at]
        if series.dtype == object:
            content = pandas.api.types.infer_dtype(series, skipna=True)
            if content not in ROUND_TRIP:
                yield f"the column {label!r} of dtype object holds {content} values"


def unreadable(error: Exception) -> IntegrityError:
    """The bytes of a table are not of their format."""
    return IntegrityError(
        f"A table cannot be read: {error}.", "Run `clewline doctor` to check the store."
    )
