"""
What reading 1,000 rows of the Adult table costs in each format: bytes to checked rows.

python bench/formats.py
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import msgspec
import polars as pl
from shared.income import ROWS, sample
from shared.keep import keep

from clewline.serve.formats import body_format
from clewline.serve.formats.body_format import ARROW, CSV, JSON, JSON_COLUMNS, PARQUET
from clewline.serve.json_reader import MAX_ROWS, JsonReader
from clewline.signature.check import Checker
from clewline.signature.field import Output, Signature
from clewline.signature.infer import infer_fields

REPEATS = 50


def main() -> None:
    rows = sample(ROWS)
    output = Output(name="income", task="binary", labels=("<=50K", ">50K"))
    checker = Checker(Signature(fields=infer_fields(pl.DataFrame(rows)), output=output))
    reader = JsonReader(checker)
    figures: dict[str, Any] = {}
    for format, body in bodies(rows).items():
        took_s = least(reader(format, body, checker, reader))
        figures[format] = {"bytes": len(body), "ms": round(took_s * 1e3, 3)}
        print(f"{format:14} {len(body):8} bytes {took_s * 1e3:7.3f} ms")
    keep("formats", figures, versions=("polars", "msgspec"))


def reader(format: str, body: bytes, checker: Checker, reader: JsonReader) -> Callable[[], Any]:
    """Read as the server does: a large body of JSON rows in portions."""
    if format == JSON:
        return lambda: list(reader.read_large(body))
    named = body_format.load_format(format)
    return lambda: named.read_rows(body, "", checker, MAX_ROWS)


def least(read: Callable[[], Any]) -> float:
    """Time some readings, and give the quickest."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        read()
        times.append(time.perf_counter() - start)
    return min(times)


def bodies(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """Write the rows in every format."""
    frame = pl.DataFrame(rows)
    arrow, parquet = io.BytesIO(), io.BytesIO()
    frame.write_ipc_stream(arrow)
    frame.write_parquet(parquet)
    columns = {name: frame[name].to_list() for name in frame.columns}
    return {
        JSON: msgspec.json.encode({"rows": rows}),
        JSON_COLUMNS: msgspec.json.encode({"columns": columns}),
        CSV: frame.write_csv().encode(),
        ARROW: arrow.getvalue(),
        PARQUET: parquet.getvalue(),
    }


if __name__ == "__main__":
    main()
