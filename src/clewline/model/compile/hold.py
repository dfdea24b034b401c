"""Holding a compiled form against its original: labels, numbers, and bits at every batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.outputs import Outputs, Predictor, join_outputs, take_outputs, take_rows
from clewline.signature.columns import Columns

TOLERANCE = 1e-6
"""Most that a probability may differ, or a value relative to the largest."""

BATCH_SIZES = (1, 2, 7, 64, 1000)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far answers are from those of the original."""

    flips: int
    largest: float
    identical: int  # rows
    rows: int
    alone: int = 0  # rows held one to a call besides

    @property
    def reason(self) -> str | None:
        """Why the two are not equal; None when they are."""
        if self.flips:
            return f"{self.flips} of {self.rows} labels differ"
        if not self.largest <= TOLERANCE:
            return f"numbers differ by up to {self.largest:.2g} on {self.rows} rows"
        return None


def difference(wanted: Outputs, found: Outputs) -> Difference:
    """Compare answers row by row. A value is compared relative to the largest one."""
    if _shapes(wanted) != _shapes(found):
        return Difference(_rows(wanted), math.inf, 0, _rows(wanted))
    flips = 0
    if wanted.choices is not None and found.choices is not None:
        flips = int(np.count_nonzero(wanted.choices != found.choices))
    largest, same = 0.0, np.ones(_rows(wanted), dtype=bool)
    for one, other in (
        (wanted.probabilities, found.probabilities),
        (wanted.values, found.values),
    ):
        if one is None or other is None:
            continue
        scale = 1.0 if one is wanted.probabilities else float(np.abs(one).max(initial=0.0)) or 1.0
        largest = max(largest, _largest(one, other) / scale)
        same &= (one == other).reshape(len(one), -1).all(axis=1)
    return Difference(flips, largest, int(same.sum()), _rows(wanted))


def same_bits(predictor: Predictor, rows: Columns, calls: int) -> bool:
    """
    Say whether rows give the same bits at each of `BATCH_SIZES`.

    Args:
        predictor: Asked at most `calls` times for each size.
        rows: The first `calls` * size of them are asked at a size.
        calls: Bounds the time.
    """
    whole = predictor.predict(rows)
    for size, count in zip(BATCH_SIZES, in_each(len(rows), calls), strict=True):
        first = slice(0, count)
        batches = in_batches(predictor, take_rows(rows, first), size)
        if not _identical(take_outputs(whole, first), batches):
            return False
    return True


def in_each(rows: int, calls: int) -> tuple[int, ...]:
    """Give how many of the rows `same_bits` compares at each of `BATCH_SIZES`."""
    return tuple(min(rows, calls * size) for size in BATCH_SIZES)


def in_batches(predictor: Predictor, rows: Columns, size: int) -> Outputs:
    """Answer rows, `size` at a time."""
    starts = range(0, len(rows), size)
    return join_outputs([predictor.predict(take_rows(rows, slice(at, at + size))) for at in starts])


def _largest(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    gaps = np.where(same, 0.0, np.abs(one - other))
    return float(np.where(np.isnan(gaps), np.inf, gaps).max(initial=0.0))


def _identical(one: Outputs, other: Outputs) -> bool:
    pairs = (
        (one.choices, other.choices),
        (one.probabilities, other.probabilities),
        (one.values, other.values),
        (one.tensor, other.tensor),
    )
    return all(
        a is b or (a is not None and b is not None and a.tobytes() == b.tobytes()) for a, b in pairs
    )


def _shapes(outputs: Outputs) -> list[tuple[int, ...] | None]:
    """What is answered to a row, and to how many: the two must answer the same things."""
    parts = (outputs.choices, outputs.probabilities, outputs.values, outputs.tensor)
    return [None if part is None else part.shape for part in parts]


def _rows(outputs: Outputs) -> int:
    return len(outputs)
