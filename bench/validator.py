"""What a row costs before the model sees it: decoding, checks, arrays, bounds, levels."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.infer import infer_signature

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("CLEWLINE_DATA") or ROOT.parent / "shared" / "data")


def main() -> None:
    """Measure batches of 1, 32 and 1,000 rows of Adult beside a plain `json.loads` of them."""
    income = _example()
    train = income.parse(DATA / "adult" / "adult.data.gz")
    test = income.parse(DATA / "adult" / "adult.test.gz")
    checker = Checker(infer_signature(train, target=income.TARGET))
    rows = dataframes.drop_column(test, income.TARGET).head(1000).to_dicts()
    figures = {f"{count} rows": _measured(checker, rows[:count]) for count in (1, 32, 1000)}
    for name, figure in figures.items():
        print(name, *(f"{what} {value:.2f}" for what, value in figure.items()), sep="; ")
    sys.path.insert(0, str(ROOT / "bench"))
    from shared.keep import keep

    keep("validator", {"unit": "µs a row, best of 15", **figures}, versions=("msgspec", "numpy"))


def _measured(checker: Checker, rows: list[dict[str, Any]]) -> dict[str, float]:
    body = json.dumps(rows).encode()
    decoded = checker.decode(body)
    figure = {
        "decode": _best(lambda: checker.decode(body)),
        "columns, bounds, levels": _best(lambda: checker.columns(decoded)),
        "all": _best(lambda: checker.columns(checker.decode(body))),
        "second pass": _best(lambda: checker.problems(body)),
        "json.loads": _best(lambda: json.loads(body)),
    }
    figure = {what: value / len(rows) for what, value in figure.items()}
    return {**figure, "all / json.loads": figure["all"] / figure["json.loads"]}


def _best(work: Callable[[], Any]) -> float:
    timer = timeit.Timer(work)
    calls, _ = timer.autorange()
    calls = max(calls // 4, 1)
    return min(timer.repeat(15, calls)) / calls * 1e6


def _example() -> Any:
    path = ROOT / "examples" / "income" / "pipelines" / "income.py"
    spec = importlib.util.spec_from_file_location("income", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
