"""
Split thresholds carried back through scalers to the raw field.

A scaler, an imputer and the rounding to float32 never turn an order round, so for
each threshold on a transformed value there is one largest raw float64 that still goes
left. It is found by bisection over all representable float64, by the very arithmetic
of the transformers: the decision is the same for every raw value there is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.track import Number

_SIGN = np.uint64(1 << 63)


def fold(column: Number, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Give for each threshold on a column the largest raw value that is at most there.

    Args:
        column: A monotone column.
        thresholds: Values on the transformed scale, shape (n,).

    Returns:
        Raw values, shape (n,): -inf where no value is at most the threshold, inf where all are.
    """
    low, high = _rank(np.full(len(thresholds), -np.inf)), _rank(np.full(len(thresholds), np.inf))
    while (high - low).max(initial=np.uint64(0)) > 1:
        middle = low + (high - low) // np.uint64(2)
        left = column.apply(_unrank(middle)) <= thresholds
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    all_left = column.apply(_unrank(high)) <= thresholds
    return _unrank(np.where(all_left, high, low))


def _rank(x: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Place of a float64 among all, from the most negative."""
    bits = x.view(np.uint64)
    return np.where(bits & _SIGN != 0, ~bits, bits | _SIGN)


def _unrank(rank: NDArray[np.uint64]) -> NDArray[np.float64]:
    bits = np.where(rank & _SIGN != 0, rank & ~_SIGN, ~rank)
    return bits.view(np.float64)
