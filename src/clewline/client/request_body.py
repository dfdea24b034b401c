"""
The body of a request from what a caller has: dicts, or a table of Polars, pandas or Arrow.

    dicts              rows of JSON
    Polars, Arrow      Arrow IPC, which their library writes and the server reads at once
    pandas             columns of JSON, since pandas needs PyArrow to write Arrow
"""

from __future__ import annotations

import datetime as dt
import importlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from clewline.errors import UsageError

RowsLike: TypeAlias = Any
"""One row as a mapping, an iterable of them, or a Polars, pandas or Arrow table."""

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"


class EncodedRows(NamedTuple):
    """A body, its content type, and the column in it that names the entity of each row."""

    data: bytes
    content_type: str = JSON
    entities: str | None = None


def encode_rows(data: RowsLike, entities: Sequence[str] | None) -> EncodedRows:
    """
    Write what a caller has as the body of a request.

    Raises:
        UsageError: It is neither rows nor a table, or has not one entity per row.
    """
    data = _collected(data)
    if isinstance(data, Mapping) or not hasattr(data, "columns"):
        return EncodedRows(_json({"rows": rows_of(data)}, entities))
    if entities is not None and len(entities) != len(data):
        raise UsageError(
            f"There are {len(entities)} entities and {len(data)} rows.", "Give one per row."
        )
    if hasattr(data, "iloc"):
        return EncodedRows(_json({"columns": _pandas_columns(data)}, entities))
    is_polars, buffer, name = hasattr(data, "write_ipc_stream"), io.BytesIO(), None
    if entities is not None:
        taken, name = set(data.columns if is_polars else data.schema.names), "entity"
        while name in taken:
            name += "_"
    if is_polars:
        if name is not None:
            polars = importlib.import_module("polars")
            data = data.with_columns(polars.Series(name, list(entities or ()), polars.String))
        data.write_ipc_stream(buffer)
    else:
        arrow, ipc = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.ipc")
        if name is not None:
            data = data.append_column(name, arrow.array(list(entities or ()), arrow.string()))
        with ipc.new_stream(buffer, data.schema) as stream:
            stream.write(data)
    return EncodedRows(buffer.getvalue(), ARROW, name)


def rows_of(data: RowsLike) -> list[dict[str, Any]]:
    """
    Return the rows of what a caller has, each a dict of plain values.

    In a table, NaN, NaT and NA are null, and a time without offset is in UTC, as where the
    server itself reads tables.

    Raises:
        UsageError: It is neither rows nor a table.
    """
    data, is_table = _collected(data), True
    if isinstance(data, Mapping):
        data, is_table = [data], False
    elif hasattr(data, "to_dicts"):  # Polars
        data = data.to_dicts()
    elif hasattr(data, "to_pylist") and hasattr(data, "schema"):  # Arrow
        data = data.to_pylist()
    elif hasattr(data, "to_dict") and hasattr(data, "iloc"):  # pandas
        data = data.to_dict(orient="records")
    elif isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise _no_rows(data)
    else:
        is_table = False
    rows = []
    for row in data:
        if not isinstance(row, Mapping):
            raise _no_rows(row)
        rows.append({str(name): _plain(value, is_table) for name, value in row.items()})
    return rows


def _collected(data: Any) -> Any:
    """Compute a lazy frame of Polars; return anything else as it is."""
    return data.collect() if hasattr(data, "collect") and hasattr(data, "sink_parquet") else data


def _json(content: dict[str, Any], entities: Sequence[str] | None) -> bytes:
    """Write JSON; what JSON does not have, such as infinity, is left for the server to refuse."""
    if entities is not None:
        content["entities"] = list(entities)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _pandas_columns(frame: Any) -> dict[str, list[Any]]:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise UsageError(f"The columns {names} have a name twice.", "Rename one of them.")
    columns = frame.to_dict(orient="list").values()
    return {n: [_plain(v, True) for v in c] for n, c in zip(names, columns, strict=True)}


def _plain(value: Any, is_table: bool) -> Any:
    """Turn a value into one that JSON has."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, dt.date):
        if value != value:  # NaT of pandas
            return None
        if not isinstance(value, dt.datetime):
            return f"{value.isoformat()}T00:00:00Z"
        return value.isoformat() + ("Z" if value.tzinfo is None and is_table else "")
    if isinstance(value, list | tuple):
        return [_plain_element(each) for each in value]
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy
        plain = value.tolist()
        return [_plain_element(each) for each in plain] if isinstance(plain, list) else plain
    if type(value).__name__ == "NAType":
        return None
    raise UsageError(
        f"A value is a {type(value).__name__}.",
        "Send numbers, strings, booleans, date-times, lists of numbers, or None.",
    )


def _plain_element(value: Any) -> Any:
    """Turn an element of a tensor into one that JSON has; NaN is left for the server to refuse."""
    if isinstance(value, list | tuple):
        return [_plain_element(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _no_rows(data: Any) -> UsageError:
    return UsageError(
        f"A {type(data).__name__} is neither a row nor a table.",
        "Send dicts, one per row, or a table of Polars, pandas or Arrow.",
    )
