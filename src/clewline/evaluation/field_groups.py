"""
Groups of fields that carry the same information.

Source:
    Rank correlation: Spearman, The proof and measurement of association between two things
    (American Journal of Psychology 15, 1904). Cramér's V without its bias: Bergsma, A
    bias-correction for Cramér's V and Tschuprow's T (Journal of the Korean Statistical Society
    42, 2013).
"""

from __future__ import annotations

import numpy as np

from clewline.evaluation.columns import EvaluatedColumn, EvaluatedColumns
from clewline.evaluation.metrics import Floats, Integers

LINKED = 0.5
"""Fields whose mean association is at least this are a group."""

LEVELS = 100
"""Levels of a field that are told apart, the most frequent ones."""


def group_fields(columns: EvaluatedColumns) -> list[tuple[str, ...]]:
    """
    Find groups of two or more associated fields: average linkage, cut at `LINKED`.

    Args:
        columns: Of the same rows.
    """
    names = list(columns)
    if len(names) < 2:
        return []
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    apart = 1 - associations([columns[name] for name in names])
    np.fill_diagonal(apart, 0)
    places = fcluster(linkage(squareform(apart, checks=False), "average"), 1 - LINKED, "distance")
    found: dict[int, list[str]] = {}
    for name, place in zip(names, places.tolist(), strict=True):
        found.setdefault(place, []).append(name)
    return [tuple(group) for group in found.values() if len(group) > 1]


def associations(columns: list[EvaluatedColumn]) -> Floats:
    """
    Measure how strongly each two columns are associated, in [0, 1], shape (fields, fields).

    Two numbers by |Spearman|, two columns of levels by Cramér's V, and a number with levels by
    the correlation ratio of its ranks. Null counts as a level of its own, or as the mean rank.
    """
    ranks = {at: _ranks(each.values) for at, each in enumerate(columns) if each.is_numeric}
    codes = {at: level_codes(each) for at, each in enumerate(columns) if not each.is_numeric}
    found = np.eye(len(columns))
    for one in range(len(columns)):
        for two in range(one):
            if one in ranks and two in ranks:
                value = abs(float((ranks[one] * ranks[two]).mean()))
            elif one in codes and two in codes:
                value = _cramers_v(codes[one], codes[two])
            else:
                level, number = (one, two) if one in codes else (two, one)
                value = _correlation_ratio(codes[level], ranks[number])
            found[one, two] = found[two, one] = min(value, 1.0)
    return found


def level_codes(column: EvaluatedColumn) -> Integers:
    """Number the levels of a column from the most frequent, 0; null, and rare ones, are last."""
    null = len(column.levels or ())
    _, codes, counts = np.unique(
        np.where(column.is_null, null, column.values), return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return np.minimum(place[codes.reshape(-1)], LEVELS)


def _ranks(values: Floats) -> Floats:
    """Return ranks with mean 0 and variance 1; all 0 if there is one value only."""
    from scipy.stats import rankdata

    found, known = np.zeros(len(values)), ~np.isnan(values)
    ranks = rankdata(values[known])
    spread = ranks.std() if len(ranks) else 0.0
    if spread > 0:
        found[known] = (ranks - ranks.mean()) / spread * np.sqrt(len(values) / known.sum())
    return found


def _correlation_ratio(codes: Integers, ranks: Floats) -> float:
    """Return the share of the ranks' variance between levels, its root, corrected for chance."""
    counts = np.bincount(codes)
    means = np.bincount(codes, ranks) / np.maximum(counts, 1)
    rows, levels = len(codes), int((counts > 0).sum())
    total = float((ranks**2).sum())
    if total == 0 or rows <= levels:
        return 0.0
    within = total - float((counts * means**2).sum())
    # Epsilon squared: Kelley, An unbiased correlation ratio measure (PNAS 21, 1935).
    return float(np.sqrt(max(0.0, 1 - within / (rows - levels) / (total / (rows - 1)))))


def _cramers_v(one: Integers, two: Integers) -> float:
    width = int(two.max()) + 1
    table = np.bincount(one * width + two).astype(np.float64)
    table = np.pad(table, (0, -len(table) % width)).reshape(-1, width)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    rows, (height, width) = table.sum(), table.shape
    if min(height, width) < 2:
        return 0.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / rows
    phi = float(((table - expected) ** 2 / expected).sum()) / rows
    phi = max(0.0, phi - (height - 1) * (width - 1) / (rows - 1))
    least = min(height - (height - 1) ** 2 / (rows - 1), width - (width - 1) ** 2 / (rows - 1)) - 1
    return float(np.sqrt(phi / least)) if least > 0 else 0.0
