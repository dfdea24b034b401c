"""How far apart rows are, field by field."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clewline.signature.columns import Columns
from clewline.signature.field import Signature


class RowDistances:
    """
    Distances of rows from one row; the distance of two rows is the sum over their fields.

    A number counts in median absolute deviations of the background rows (in mean absolute
    deviations if most rows have one value). Another level, text or array, or null in place of a
    value, counts as 1.

    Args:
        background: At least one checked row, which gives the units.
        signature: Of the rows.
    """

    def __init__(self, background: Columns, signature: Signature) -> None:
        self._signature = signature
        place = {each.name: at for at, each in enumerate(signature.fields)}
        self._numbers = [place[each.name] for each in signature.numeric]
        self._texts = [place[each.name] for each in signature.textual]
        self._tensors = [place[each.name] for each in signature.tensors]
        with np.errstate(all="ignore"):
            spread = np.abs(background.numbers - _median(background.numbers))
            scale = _median(spread)
            mean = np.nanmean(np.where(np.isnan(spread).all(axis=0), 1.0, spread), axis=0)
        scale = np.where(scale > 0, scale, mean)
        self._scale = np.where(scale > 0, scale, 1.0)

    def between(self, rows: Columns, row: Columns) -> NDArray[np.float64]:
        """Return the distance of each field of n rows from one row, (n, fields)."""
        found = np.zeros((len(rows), len(self._signature.fields)))
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            apart = np.abs(rows.numbers - row.numbers) / self._scale
        nulls = np.isnan(rows.numbers) != np.isnan(row.numbers)
        found[:, self._numbers] = np.where(nulls, 1.0, np.nan_to_num(apart))
        found[:, self._texts] = rows.texts != row.texts
        for at, each in zip(self._tensors, self._signature.tensors, strict=True):
            same = rows.tensors[each.name] == row.tensors[each.name]
            found[:, at] = ~same.reshape(len(rows), -1).all(axis=1)
        return found


def word_distances(texts: NDArray[np.object_], text: str | None) -> NDArray[np.float64]:
    """
    Return how few words texts share with one, in [0, 1], shape (n,); 1 if just one is null.

    Source:
        Jaccard, The distribution of the flora in the alpine zone (New Phytologist 11, 1912).
    """
    own = None if text is None else set(text.casefold().split())
    found = np.ones(len(texts))
    for at, other in enumerate(texts.tolist()):
        if other is None or own is None:
            found[at] = float(other is not own)
            continue
        words = set(other.casefold().split())
        union = len(own | words)
        found[at] = 1 - len(own & words) / union if union else 0.0
    return found


def array_distances(arrays: NDArray[np.generic], array: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the mean absolute difference of arrays (n, …) from one, shape (n,)."""
    flat = arrays.reshape(len(arrays), -1).astype(np.float64)
    return np.asarray(np.abs(flat - array.reshape(1, -1).astype(np.float64)).mean(axis=1))


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.where(np.isnan(values).all(axis=0), 0.0, values)
    found: NDArray[np.float64] = np.nanmedian(known, axis=0)
    return found
