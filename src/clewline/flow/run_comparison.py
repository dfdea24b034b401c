"""Compare many runs: each parameter and metric beside its values, those that differ first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from clewline.errors import UsageError
from clewline.store.records import Run
from clewline.store.run_values import flat_params

RUNS_COMPARED = 100
"""Runs of one comparison, at most."""


class ComparedValue(msgspec.Struct, frozen=True):
    """A parameter or a metric, with its value in each run."""

    kind: Literal["param", "metric"]
    name: str
    values: list[Any]  # None where the run has none
    differs: bool


def compare_values(runs: Sequence[Run]) -> list[ComparedValue]:
    """
    Put the parameters and metrics of runs side by side.

    Returns:
        What differs first, parameters before metrics, in the order of the runs.

    Raises:
        UsageError: These are more than 100 runs.
    """
    if len(runs) > RUNS_COMPARED:
        raise UsageError(
            f"At most {RUNS_COMPARED} runs are compared at once (got {len(runs)}).",
            "Choose fewer, or list them with `clewline runs list --json`.",
        )
    params = [{"pipeline": r.pipeline, "seed": r.seed, **flat_params(r.params)} for r in runs]
    found = [*_side_by_side("param", params), *_side_by_side("metric", [r.metrics for r in runs])]
    return sorted(found, key=lambda each: not each.differs)


def _side_by_side(
    kind: Literal["param", "metric"], sides: Sequence[dict[str, Any]]
) -> list[ComparedValue]:
    names = dict.fromkeys(name for side in sides for name in side)
    return [_compared(kind, name, [side.get(name) for side in sides]) for name in names]


def _compared(kind: Literal["param", "metric"], name: str, values: list[Any]) -> ComparedValue:
    first, *others = values
    # NaN is not equal to itself, and True equals 1; as text both are what they are.
    differs = any(repr(value) != repr(first) for value in others)
    return ComparedValue(kind, name, values, differs)
