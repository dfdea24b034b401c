"""
Polars and pandas tables: their canonical pieces and their formats.

A column's piece is made of its name, its dtype, which of its rows are null,
and its values with zero under nulls. It does not depend on chunks, on the codes
of categories, on the bytes under a null, or on the bits of a NaN.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from clewline.entry_points import install_command
from clewline.errors import IntegrityError, NotStorable, NotSupported
from clewline.flow.values import json_values
from clewline.flow.values.arrays import canonical_bytes
from clewline.flow.values.framing import (
    PieceOf,
    StoredForm,
    Undigestible,
    framed,
    joined,
    text_bytes,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

ROWS_AT_ONCE = 1 << 20
"""Strings are joined in chunks of this many rows, to bound memory; the digest does not depend
on it."""

ROUND_TRIP = frozenset({"string", "bytes", "boolean", "date", "decimal", "empty"})
"""The contents of a pandas object column that Arrow returns unchanged."""


def table_piece(value: Any, piece: PieceOf) -> bytes | None:
    """Return the piece of a table or a column; None for another object of these libraries."""
    kind = (type(value).__module__.partition(".")[0], type(value).__name__)
    if kind == ("polars", "DataFrame"):
        head = framed("height", b"%d" % value.height)
        return joined("polars", (head, *map(_column, value.get_columns())))
    if kind == ("polars", "Series"):
        return joined("polars series", (_column(value),))
    if kind == ("pandas", "DataFrame"):
        columns = (_pandas_values(value.iloc[:, at], piece) for at in range(value.shape[1]))
        labels = joined("labels", map(piece, value.columns.tolist()))
        names = piece(list(value.columns.names))
        index = _pandas_index(value.index, piece)
        return joined("pandas", (labels, names, index, *columns, *_attributes(value, piece)))
    if kind == ("pandas", "Series"):
        index = _pandas_index(value.index, piece)
        parts = (piece(value.name), index, _pandas_values(value, piece))
        return joined("pandas series", (*parts, *_attributes(value, piece)))
    if kind[0] == "pandas" and kind[1].endswith("Index"):
        return _pandas_index(value, piece)
    if kind == ("pyarrow", "Table"):  # read as Polars reads it
        import polars as pl

        frame = pl.from_arrow(value)
        assert isinstance(frame, pl.DataFrame)
        return joined("arrow", map(_column, frame.get_columns()))
    return None


# Polars


def _column(series: pl.Series) -> bytes:
    """Return the piece of one Polars column."""
    name = framed("name", text_bytes(series.name))
    return joined("column", (name, framed("dtype", _dtype_text(series.dtype)), _values(series)))


def _dtype_text(dtype: pl.DataType) -> bytes:
    """Return a dtype by its logical content; the codes of categories are not content."""
    import polars as pl

    if isinstance(dtype, pl.Categorical):
        return b"Categorical"
    if isinstance(dtype, pl.Decimal):  # an old Polars says None for the largest precision
        return b"Decimal(precision=%d, scale=%d)" % (dtype.precision or 38, dtype.scale)
    if isinstance(dtype, pl.List | pl.Array):
        inner = dtype.inner() if isinstance(dtype.inner, type) else dtype.inner
        size = b",%d" % dtype.size if isinstance(dtype, pl.Array) else b""
        return b"%s(%s%s)" % (type(dtype).__name__.encode(), _dtype_text(inner), size)
    if isinstance(dtype, pl.Struct):
        fields = (f"{field.name!r}:".encode() + _dtype_text(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
        return b"Struct(%s)" % b",".join(fields)
    return text_bytes(repr(dtype))


def _values(series: pl.Series) -> bytes:
    """Return the piece of a column's values: length, nulls, content."""
    import polars as pl

    dtype, nulls = series.dtype, series.is_null()
    length = framed("length", b"%d" % len(series))
    valid = framed("nulls", nulls.to_numpy().tobytes() if series.null_count() else b"")
    if isinstance(dtype, pl.List):
        lengths = series.list.len().fill_null(0)
        content = framed("lengths", _numbers(lengths)) + _values(_exploded(series, lengths))
    elif isinstance(dtype, pl.Array):
        lists = series.arr.to_list()
        content = _values(_exploded(lists, lists.list.len().fill_null(0)))
    elif isinstance(dtype, pl.Struct):
        fields = (series.struct.field(field.name) for field in dtype.fields)
        visible = (pl.when(nulls).then(None).otherwise(each) for each in fields)
        content = b"".join(_values(pl.select(each).to_series()) for each in visible)
    else:
        content = framed("values", _scalars(series))
    return joined("values", (length, valid, content))


def _exploded(series: pl.Series, lengths: pl.Series) -> pl.Series:
    """Return the items of all lists; explode would make a null of an empty one."""
    return series.filter(lengths > 0).explode()


def _scalars(series: pl.Series) -> bytes:
    """Return the bytes, or their digest, of a column without inner columns."""
    import polars as pl

    dtype = series.dtype
    if dtype == pl.Null:
        return b""
    if dtype == pl.Binary:
        return _texts(series.bin.encode("hex"))
    as_text = pl.String | pl.Categorical | pl.Enum | pl.Decimal | pl.Int128
    if isinstance(dtype, as_text) or str(dtype) == "UInt128":  # which Polars has from 1.34
        return _texts(series.cast(pl.String))
    if dtype == pl.Boolean:
        series = series.cast(pl.UInt8)
    elif dtype.is_temporal():
        series = series.to_physical()
    elif not dtype.is_numeric():
        kind = f"polars column {series.name!r} of dtype {dtype}"
        raise Undigestible(kind, "has no canonical bytes")
    return _numbers(series.fill_null(0))


def _numbers(series: pl.Series) -> bytes:
    """Return little-endian bytes of a numeric column without nulls."""
    return canonical_bytes(series.rechunk().to_numpy())


def _texts(series: pl.Series) -> bytes:
    """Return a digest of the lengths in bytes and of all strings, concatenated."""
    series = series.fill_null("")
    hasher = blake3(_numbers(series.str.len_bytes()))
    for start in range(0, len(series), ROWS_AT_ONCE):
        text: str = series.slice(start, ROWS_AT_ONCE).str.join("").item()
        hasher.update(text.encode())
    return hasher.digest()


# pandas and Arrow


def _pandas_index(index: Any, piece: PieceOf) -> bytes:
    """Return the piece of an index, level by level."""
    levels = (
        _pandas_values(index.get_level_values(level).to_series(), piece)
        for level in range(index.nlevels)
    )
    frequency = piece(getattr(index, "freqstr", None))
    return joined("index", (piece(list(index.names)), frequency, *levels))


def _attributes(value: Any, piece: PieceOf) -> list[bytes]:
    """Return the piece of `attrs`, if there are any."""
    return [framed("attrs", piece(value.attrs))] if value.attrs else []


def _pandas_values(series: pd.Series[Any], piece: PieceOf) -> bytes:
    """Return the piece of one pandas column: dtype, nulls, values."""
    dtype = framed("dtype", text_bytes(str(series.dtype)))
    if str(series.dtype) == "category":
        categories = _pandas_index(series.cat.categories, piece)
        ordered, codes = piece(bool(series.cat.ordered)), series.cat.codes.to_numpy()
        content = piece(codes.astype("<i8"))
        return joined("category", (dtype, categories, ordered, content))
    if series.dtype == object:
        missing = series.isna().to_numpy()
        items = (None if gone else item for gone, item in zip(missing, series, strict=True))
        return joined("objects", map(piece, items))
    return joined("values", (dtype, _values(_as_polars(series))))


def _as_polars(series: pd.Series[Any]) -> pl.Series:
    """Convert a pandas column through Arrow, so that both libraries' columns share their code."""
    import polars as pl

    pyarrow = _arrow()
    try:
        converted = pl.from_arrow(pyarrow.Array.from_pandas(series.reset_index(drop=True)))
    except (pyarrow.ArrowException, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise Undigestible(f"pandas column of dtype {series.dtype}", f"({error})") from error
    assert isinstance(converted, pl.Series)
    return converted


def _arrow() -> Any:
    """Import PyArrow, which pandas tables need."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise NotSupported(
            "A pandas table is stored through pyarrow, which is not installed.",
            install_command("pandas"),
        ) from error
    return pyarrow


# Formats


def table_form(value: Any) -> StoredForm | None:
    """
    Return the stored form of a frame or a series; None for another object of these libraries.

    Raises:
        NotStorable: Arrow would return the pandas table changed.
    """
    library, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if kind not in ("DataFrame", "Series"):
        return None
    meta: dict[str, Any] = {}
    if library == "polars":
        frame = value if kind == "DataFrame" else value.to_frame()
        buffer = io.BytesIO()
        frame.rechunk().write_ipc(buffer, compression="lz4")
        data, meta = buffer.getvalue(), {} if frame.width else {"height": frame.height}
    else:
        frame = value if kind == "DataFrame" else value.to_frame("values")
        if (frequency := getattr(frame.index, "freqstr", None)) is not None:
            meta["frequency"] = frequency
        if value.attrs:
            meta["attrs"] = json_values.packed(value.attrs, _refuse_attribute)
            frame = frame.copy(deep=False)
            frame.attrs = {}  # which Arrow would keep as JSON
        data = _pandas_stream(frame)
        # Arrow has one type for strings, and pandas 3 reads it as `str`.
        texts = [at for at, dtype in enumerate(frame.dtypes) if str(dtype) == "object"]
        if texts:
            meta["object_columns"] = texts
        if kind == "Series":
            meta["name"] = json_values.packed(value.name, _refuse_name)
    return StoredForm(
        kind="table",
        format=f"{library}-ipc" if kind == "DataFrame" else f"{library}-series-ipc",
        data=data,
        rows=frame.shape[0],
        columns=frame.shape[1],
        meta=meta,
    )


def _pandas_stream(frame: pd.DataFrame) -> bytes:
    """Return a pandas frame with its index as an Arrow IPC stream."""
    pyarrow = _arrow()
    kinds = {type(label).__name__ for label in frame.columns}
    if len(kinds) > 1:
        raise _unstorable(f"its column names are of several types, {' and '.join(sorted(kinds))}")
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise _unstorable(f"the column name {name!r} occurs twice")
    for at, label in enumerate(frame.columns):
        series = frame.iloc[:, at]
        if series.dtype == object:
            content = sys.modules["pandas"].api.types.infer_dtype(series, skipna=True)
            if content not in ROUND_TRIP:
                raise _unstorable(f"the column {label!r} of dtype object holds {content} values")
    try:
        table = pyarrow.Table.from_pandas(frame)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise _unstorable(str(error)) from error
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with pyarrow.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _unstorable(problem: str) -> NotStorable:
    return NotStorable(
        f"A pandas table cannot be stored: {problem}.",
        "Give each column one type with `astype`, and all column names one type; "
        "or keep the table out of the store with @cl.step(store_output=False).",
    )


def _refuse_name(name: Any) -> Any:
    raise _unstorable(f"the name {name!r} of the series is not a plain value")


def _refuse_attribute(value: Any) -> Any:
    raise _unstorable(f"its attrs hold a {type(value).__name__}, which is not a plain value")


def _load_polars(data: bytes, meta: Mapping[str, Any]) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_ipc(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(error) from error


def _load_pandas(data: bytes, meta: Mapping[str, Any]) -> pd.DataFrame:
    pyarrow = _arrow()
    try:
        with pyarrow.ipc.open_stream(data) as reader:
            frame: pd.DataFrame = reader.read_all().to_pandas()
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise _unreadable(error) from error
    for at in meta.get("object_columns", ()):
        series = frame.iloc[:, at]
        if series.dtype != object:
            as_objects = series.astype(object)
            frame.isetitem(at, as_objects.where(series.notna(), None))
    if (frequency := meta.get("frequency")) is not None:
        frame.index.freq = frequency  # type: ignore[attr-defined]
    frame.attrs = json_values.unpacked(meta.get("attrs", {}), _refuse_attribute)
    return frame


def _load_pandas_series(data: bytes, meta: Mapping[str, Any]) -> Any:
    frame = _load_pandas(data, meta)
    series, attributes = frame.iloc[:, 0], frame.attrs
    series.attrs = attributes
    series.name = json_values.unpacked(meta.get("name"), _refuse_name)
    return series


def _unreadable(error: Exception) -> IntegrityError:
    return IntegrityError(
        f"A table cannot be read: {error}.", "Run `clewline doctor` to check the store."
    )


TABLE_LOADERS: dict[str, Callable[[bytes, Mapping[str, Any]], Any]] = {
    "polars-ipc": _load_polars,
    "polars-series-ipc": lambda data, meta: _load_polars(data, meta).to_series(),
    "pandas-ipc": _load_pandas,
    "pandas-series-ipc": _load_pandas_series,
}
"""Format → loader, from bytes and notes."""
