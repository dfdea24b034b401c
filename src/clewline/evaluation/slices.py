"""Parts of the test rows: those that somebody names, and weak ones that are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from clewline.errors import InvalidInput
from clewline.evaluation.answers import EvaluatedRows
from clewline.evaluation.columns import EvaluatedColumn, require_column, value_groups
from clewline.evaluation.conditions import Mask, rows_that_meet
from clewline.evaluation.metrics import Interval
from clewline.evaluation.weak_slices import WeakSlices

RESAMPLES = 400
LEAST_ROWS = 30
"""Slices with fewer rows are marked as small."""
MOST_LEVELS = 20
"""Slices that one field is cut into: its most frequent values."""

SliceNames = Mapping[str, str] | Sequence[str] | str


class SliceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of some of the rows; none if no row meets the condition."""

    name: str
    condition: str
    rows: int
    share: float  # of all rows
    small: bool
    metrics: dict[str, Interval]
    others: float | None = None  # the headline metric of all other rows


class Slices(msgspec.Struct, frozen=True, kw_only=True):
    """Slices that were asked for, and weak ones that were found."""

    given: tuple[SliceMetrics, ...] = ()
    weak: WeakSlices | None = None  # None if they were not searched for


def given_slices(evaluated: EvaluatedRows, asked: SliceNames) -> tuple[SliceMetrics, ...]:
    """
    Measure slices.

    Args:
        evaluated: The test rows.
        asked: Name → condition, as in `conditions`; or conditions and names of fields, which
            give a slice for each of their most frequent values.

    Raises:
        InvalidInput: A condition cannot be read, names no column, or fits no kind.
    """
    return tuple(
        _measure(evaluated, name, condition, mask)
        for name, condition, mask in _masks(evaluated, asked)
    )


def _masks(evaluated: EvaluatedRows, asked: SliceNames) -> Iterator[tuple[str, str, Mask]]:
    if isinstance(asked, str):
        asked = [asked]
    named = asked.items() if isinstance(asked, Mapping) else [(each, each) for each in asked]
    for name, condition in named:
        if not isinstance(name, str) or not isinstance(condition, str):
            raise InvalidInput(
                f"The slice {name!r}: {condition!r} is not text.",
                'Write slices={"women": "sex == \'Female\'"} or slices=["sex"].',
            )
        if condition in evaluated.columns:
            column = evaluated.columns[condition]
            prefix = "" if name == condition else f"{name}: "
            for value, mask in _values(column):
                yield f"{prefix}{condition} is {value}", f"{condition} is {value}", mask
        elif condition.isidentifier():
            require_column(evaluated.columns, condition)  # raises
        else:
            yield name, condition, rows_that_meet(condition, evaluated.columns, evaluated.rows)


def _values(column: EvaluatedColumn) -> Iterator[tuple[str, Mask]]:
    codes, names = value_groups(column)
    sizes = np.bincount(codes, minlength=len(names))
    for code in np.argsort(-sizes, kind="stable")[:MOST_LEVELS]:
        yield names[code], codes == code


def _measure(evaluated: EvaluatedRows, name: str, condition: str, mask: Mask) -> SliceMetrics:
    rows, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
    others = None
    if rest.size:
        measure = evaluated.task.take(rest).measure(evaluated.answers.take(rest))
        value = measure(np.ones(len(rest))).get(evaluated.task.headline, np.nan)
        others = float(value) if np.isfinite(value) else None
    return SliceMetrics(
        name=name,
        condition=condition,
        rows=len(rows),
        share=len(rows) / evaluated.rows,
        small=len(rows) < LEAST_ROWS,
        metrics=evaluated.take(rows, resamples=RESAMPLES).metrics() if rows.size else {},
        others=others,
    )
