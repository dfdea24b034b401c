"""The parameters and metrics of a run as rows of their own, by which runs are searched."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from clewline.store.records import Run, RunValue
from clewline.store.rows import encode

TEXT_LENGTH = 1_000
"""Characters of a text that are kept, and compared."""


def run_values(run: Run) -> Iterator[RunValue]:
    """Yield a record for each parameter, the seed included, and for each metric of a run."""
    params = msgspec.msgpack.decode(encode(run)["params"])  # as recorded: without NumPy's types
    if run.seed is not None:
        params.setdefault("seed", run.seed)
    for name, value in flat_params(params).items():
        yield _run_value(run, "param", name, value)
    for name, metric in run.metrics.items():
        yield _run_value(run, "metric", name, metric)


def flat_params(params: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """
    Write parameters that hold others as one level, with dots between the names.

    >>> flat_params({"model": {"depth": 3, "names": ["a"]}, "rate": 0.1})
    {'model.depth': 3, 'model.names': ['a'], 'rate': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{within}{key}"
        if isinstance(value, dict) and value:
            flat |= flat_params(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _run_value(run: Run, kind: Literal["metric", "param"], name: str, value: Any) -> RunValue:
    number = text = None
    if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
        number = float(value)
    else:  # NaN is written nan, as in Python
        text = str(value) if isinstance(value, str | float) else json.dumps(value, default=str)
    clipped = text[:TEXT_LENGTH] if text is not None else None
    return RunValue(kind=kind, name=name, run=run.id, number=number, text=clipped)
