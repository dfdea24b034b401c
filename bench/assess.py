"""The assessment of a table of a million rows and 20 fields: seconds, CPU and memory."""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import polars as pl
from shared.keep import keep

from clewline.data.assess import assess
from clewline.html.data_report import write_data_report


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    given = arguments.parse_args()
    table, live = make_table(given.rows, seed=0), make_table(given.rows // 10, seed=1)
    before = memory_mib()
    started, cpu = time.perf_counter(), time.process_time()
    found = assess(table, target="y", protected=["sex", "race"], against=live)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    page = write_data_report(found, "bench", "bench")
    result = {
        "rows": given.rows,
        "fields": len(table.columns) - 1,
        "seconds": round(seconds, 1),
        "CPU seconds": round(cpu, 1),
        "memory before, MiB": before,
        "memory at most, MiB": memory_mib(),
        "findings": len(found.findings),
        "page, seconds": round(time.perf_counter() - started, 2),
        "page, KiB": len(page.encode()) // 1024,
    }
    keep("assess", result, versions=("polars", "scikit-learn", "numpy"))
    print(json.dumps(result, indent=2))


def make_table(rows: int, seed: int) -> pl.DataFrame:
    """Make a table of 10 numbers, 8 categories, a date-time and a field with nulls."""
    random = np.random.default_rng(seed)
    columns: dict[str, object] = {f"n{n}": random.normal(n, 1 + n, rows) for n in range(5)}
    columns |= {f"k{n}": random.integers(0, 10 ** (n + 1), rows) for n in range(5)}
    for n, count in enumerate((2, 5, 20, 50, 500, 5000)):
        names = np.array([f"level {number}" for number in range(count)])
        columns[f"c{n}"] = names[random.integers(0, count, rows)]
    columns["sex"] = np.array(["f", "m"])[random.integers(0, 2, rows)]
    columns["race"] = np.array(list("abcde"))[random.integers(0, 5, rows)]
    return pl.DataFrame(columns).with_columns(
        at=pl.datetime(2024, 1, 1) + pl.duration(seconds=pl.int_range(pl.len())),
        gap=pl.when(pl.int_range(pl.len()) % 7 > 0).then(pl.col("n1")),
        y=pl.when(pl.col("n1") + pl.col("n2") > 3).then(pl.lit("yes")).otherwise(pl.lit("no")),
    )


def memory_mib() -> int:
    """Return the largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
