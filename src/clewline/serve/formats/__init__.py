"""The formats that rows come in: from the bytes of a body to checked rows."""

from clewline.serve.formats.body_format import (
    ARROW,
    CSV,
    JSON,
    JSON_COLUMNS,
    JSON_ROWS,
    PARQUET,
    READ_ON_THREAD,
    BodyFormat,
    RequestRows,
    load_format,
    too_many_rows,
)

__all__ = [
    "ARROW",
    "CSV",
    "JSON",
    "JSON_COLUMNS",
    "JSON_ROWS",
    "PARQUET",
    "READ_ON_THREAD",
    "BodyFormat",
    "RequestRows",
    "load_format",
    "too_many_rows",
]
