"""Rows of a request from what a caller has: dicts, or a table of Polars, pandas or Arrow."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fairlead.errors import UsageError

RowsLike: TypeAlias = Any
"""One row as a mapping, an iterable of them, or a Polars, pandas or Arrow table."""


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


def body_of(rows: Sequence[Mapping[str, Any]], entities: Sequence[str] | None) -> bytes:
    """Write a request; what JSON cannot say, such as infinity, is left for the server to refuse."""
    asked: dict[str, Any] = {"rows": rows}
    if entities is not None:
        asked["entities"] = list(entities)
    return json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def _of_table(data: Any) -> list[dict[str, Any]] | None:
    """Take the rows out of a table by the method that its library has for that."""
    if hasattr(data, "collect") and hasattr(data, "sink_parquet"):  # a lazy frame of Polars
        data = data.collect()
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
