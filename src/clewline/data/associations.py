"""How strongly pairs of fields go together, whatever their kinds."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.data.prepared_table import Binning, Codes, PreparedColumn, floats

Floats = NDArray[np.float64]


class Associations(msgspec.Struct, frozen=True, kw_only=True):
    """
    The association of each pair of fields, from 0 to 1.

    Of two numbers it is the absolute rank correlation (Spearman), of two categories Cramér's V
    without its bias, of a number and a category the root of the share of the ranks' variance
    that the category explains.
    """

    fields: list[str]
    values: list[list[float]]  # symmetric; 1 on the diagonal
    sampled_rows: int


def measure_associations(columns: Sequence[PreparedColumn]) -> Associations:
    """
    Measure the association of each pair of columns, all of n values.

    Source:
        Bergsma, A bias-correction for Cramér's V and Tschuprow's T (Journal of the Korean
        Statistical Society 42, 2013).
    """
    from scipy.stats import rankdata

    count, rows = len(columns), len(columns[0].values) if columns else 0
    codes: list[tuple[Codes, int]] = []
    ranks = np.full((count, rows), np.nan)
    for place, column in enumerate(columns):
        binning = Binning(column)
        codes.append((binning.codes(column), binning.count))
        if column.kind in ("number", "datetime", "boolean"):
            numbers = floats(column)
            known = ~np.isnan(numbers)
            ranks[place, known] = rankdata(numbers[known])
    is_number = [column.kind in ("number", "datetime") for column in columns]
    values = np.eye(count)
    for one in range(count):
        for other in range(one):
            if is_number[one] and is_number[other]:
                found = _correlation(ranks[one], ranks[other])
            elif is_number[one] or is_number[other]:
                number, level = (one, other) if is_number[one] else (other, one)
                found = _explained(ranks[number], *codes[level])
            else:
                found = _cramers_v(codes[one], codes[other])
            values[one, other] = values[other, one] = round(found, 6)
    return Associations(
        fields=[column.name for column in columns], values=values.tolist(), sampled_rows=rows
    )


def _correlation(one: Floats, other: Floats) -> float:
    known = ~(np.isnan(one) | np.isnan(other))
    if known.sum() < 3:
        return 0.0
    a, b = one[known] - one[known].mean(), other[known] - other[known].mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return min(abs(float((a * b).sum())) / size, 1.0) if size > 0 else 0.0


def _explained(ranks: Floats, codes: Codes, count: int) -> float:
    known = ~np.isnan(ranks)
    values, groups = ranks[known], codes[known]
    rows = np.bincount(groups, minlength=count)
    if len(values) < 3 or (rows > 0).sum() < 2:
        return 0.0
    total = ((values - values.mean()) ** 2).sum()
    sums = np.bincount(groups, values - values.mean(), minlength=count)
    between = (sums**2 / np.maximum(rows, 1)).sum()
    free = int((rows > 0).sum()) - 1
    if total <= 0 or len(values) - 1 - free <= 0:
        return 0.0
    # Adjusted, as R² is, for what chance explains.
    share = 1 - (total - between) / (len(values) - 1 - free) * (len(values) - 1) / total
    return float(np.sqrt(min(max(share, 0.0), 1.0)))


def _cramers_v(one: tuple[Codes, int], other: tuple[Codes, int]) -> float:
    (a, many), (b, most) = one, other
    table = np.bincount(a * most + b, minlength=many * most).reshape(many, most).astype(np.float64)
    table = table[table.any(axis=1)][:, table.any(axis=0)]
    rows, (r, k) = table.sum(), table.shape
    if min(r, k) < 2 or rows < 3:
        return 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / rows
    phi = ((table - expected) ** 2 / expected).sum() / rows
    phi = max(0.0, phi - (r - 1) * (k - 1) / (rows - 1))
    r, k = r - (r - 1) ** 2 / (rows - 1), k - (k - 1) ** 2 / (rows - 1)
    return float(np.sqrt(min(phi / max(min(r, k) - 1, 1e-12), 1.0)))
