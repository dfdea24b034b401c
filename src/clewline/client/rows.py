"""
The body of a request from what a caller has: dicts, or a table of Polars, pandas or Arrow.

    dicts              rows of JSON
    Polars, Arrow      Arrow IPC, which their library writes and the server reads at once
    pandas             columns of JSON, since it cannot write Arrow by itself
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


class Body(NamedTuple):
    """What is sent, as which content type, and the column in it that says whom a row is about."""

    data: bytes
    content_type: str = JSON
    entities: str | None = None


def body_of(data: RowsLike, entities: Sequence[str] | None) -> Body:
    """
    Write what a caller has as the body of a request.

    Raises:
        UsageError: It is neither rows nor a table, or has not one entity a row.
    """
    data = _collected(data)
    if isinstance(data, Mapping) or not hasattr(data, "columns"):
        return Body(json_of({"rows": rows_of(data)}, entities))
    if entities is not None and len(entities) != len(data):
        raise UsageError(
            f"There are {len(entities)} entities and {len(data)} rows.", "Give one a row."
        )
    if hasattr(data, "iloc"):
        return Body(json_of({"columns": _columns(data)}, entities))
    write = _of_polars if hasattr(data, "write_ipc_stream") else _of_arrow
    name = None if entities is None else _free_name(data)
    return Body(write(data, name, entities), ARROW, name)


def rows_of(data: RowsLike) -> list[dict[str, Any]]:
    """
    Give the rows of what a caller has, each a dict of plain values.

    Of a table NaN, NaT and NA are null, and a time without offset is one of UTC, as where
    the server itself reads tables.

    Raises:
        UsageError: It is neither rows nor a table.
    """
    if isinstance(data, Mapping):
        return [_row(data, is_table=False)]
    table = _of_table(data)
    if table is not None:
        return [_row(row, is_table=True) for row in table]
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise _no_rows(data)
    return [_row(row, is_table=False) for row in data]


def json_of(asked: dict[str, Any], entities: Sequence[str] | None) -> bytes:
    """Write JSON; what it cannot say, such as infinity, is left for the server to refuse."""
    if entities is not None:
        asked["entities"] = list(entities)
    text = json.dumps(asked, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _collected(data: Any) -> Any:
    """Compute a lazy frame of Polars; anything else as it is."""
    return data.collect() if hasattr(data, "collect") and hasattr(data, "sink_parquet") else data


def _columns(frame: Any) -> dict[str, list[Any]]:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise UsageError(f"The columns {names} bear a name twice.", "Name each column once.")
    columns = frame.to_dict(orient="list").values()
    return {n: [_plain(v, True) for v in c] for n, c in zip(names, columns, strict=True)}


def _of_polars(frame: Any, name: str | None, entities: Sequence[str] | None) -> bytes:
    if name is not None:
        polars = importlib.import_module("polars")
        frame = frame.with_columns(polars.Series(name, list(entities or ()), polars.String))
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def _of_arrow(table: Any, name: str | None, entities: Sequence[str] | None) -> bytes:
    """Write a table or a batch of Arrow."""
    arrow, ipc = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.ipc")
    if name is not None:
        table = table.append_column(name, arrow.array(list(entities or ()), arrow.string()))
    buffer = io.BytesIO()
    with ipc.new_stream(buffer, table.schema) as stream:
        stream.write(table)
    return buffer.getvalue()


def _free_name(table: Any) -> str:
    """Find a name that no column has."""
    names = set(table.columns if hasattr(table, "write_ipc_stream") else table.schema.names)
    name = "entity"
    while name in names:
        name += "_"
    return name


def _of_table(data: Any) -> list[dict[str, Any]] | None:
    """Take the rows out of a table by the method that its library has for that."""
    data = _collected(data)
    if hasattr(data, "to_dicts"):  # Polars
        return list(data.to_dicts())
    if hasattr(data, "to_pylist") and hasattr(data, "schema"):  # Arrow
        return list(data.to_pylist())
    if hasattr(data, "to_dict") and hasattr(data, "iloc"):  # pandas
        return list(data.to_dict(orient="records"))
    return None


def _row(row: Any, *, is_table: bool) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise _no_rows(row)
    return {str(name): _plain(value, is_table) for name, value in row.items()}


def _plain(value: Any, is_table: bool) -> Any:
    """Make a value fit for JSON."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, dt.date):
        return _time(value, is_table)
    if isinstance(value, list | tuple):
        return [_element(each) for each in value]
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy
        plain = value.tolist()
        return [_element(each) for each in plain] if isinstance(plain, list) else plain
    if type(value).__name__ == "NAType":
        return None
    raise UsageError(
        f"A value is a {type(value).__name__}.",
        "Send numbers, texts, booleans, date-times, lists of numbers, or None.",
    )


def _element(value: Any) -> Any:
    """Make an element of a tensor fit for JSON; NaN is left for the server to refuse."""
    if isinstance(value, list | tuple):
        return [_element(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _time(value: dt.date, is_table: bool) -> str | None:
    if value != value:  # NaT of pandas
        return None
    if not isinstance(value, dt.datetime):
        return f"{value.isoformat()}T00:00:00Z"
    if value.tzinfo is None and is_table:
        return f"{value.isoformat()}Z"
    return value.isoformat()


def _no_rows(data: Any) -> UsageError:
    return UsageError(
        f"A {type(data).__name__} is neither a row nor a table.",
        "Send dicts, one a row, or a table of Polars, pandas or Arrow.",
    )
