"""
How well fields together tell groups of rows apart, and which fields do it.

Used for two questions: can a protected field be told from the other fields, and can the rows of
one table be told from those of another? Boosted trees answer rows that they were not trained on.

Source:
    Lopez-Paz, Oquab, Revisiting classifier two-sample tests (ICLR 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.data.prepared_table import Codes, PreparedColumn, floats

FOLDS = 3
MOST_FIELDS = 60
_LEVELS = 200
_PERMUTED_ROWS = 4000
_LEAST_ROWS = 30  # of the smallest group, for a model to be trained

Floats = NDArray[np.float64]


class FieldWeight(msgspec.Struct, frozen=True):
    """How much worse groups are told apart if a field's values are shuffled among the rows."""

    field: str
    drop: float  # of the AUC


class Discrimination(msgspec.Struct, frozen=True, kw_only=True):
    """How well groups of rows can be told apart: 0.5 not at all, 1 always."""

    auc: float  # with more than two groups the mean over each against the rest
    low: float  # 95 % interval
    high: float
    rows: int  # that were used
    fields: list[FieldWeight]  # that matter, the most important first


def discriminate(
    columns: Sequence[PreparedColumn], groups: Codes, *, seed: int = 0
) -> Discrimination | None:
    """
    Measure how well columns tell groups of rows apart.

    Args:
        columns: Of n values, at most 60; pass the likely ones of more.
        groups: Group of each row, shape (n,), from 0.
        seed: Seed of folds, trees and shuffles.

    Returns:
        None if there are fewer than two groups of 30 rows, or no column.
    """
    import sklearn.ensemble  # noqa: F401 - loads OpenMP, which is limited only once it is there
    from threadpoolctl import threadpool_limits

    sizes = np.bincount(groups)
    kept = np.flatnonzero(sizes >= _LEAST_ROWS)
    if len(kept) < 2 or not columns:
        return None
    rows = np.flatnonzero(np.isin(groups, kept))
    labels = np.searchsorted(kept, groups[rows])
    inputs, categorical = _encode(columns)
    inputs = inputs[rows]
    fold = _stratified_folds(labels, seed)
    scores = np.zeros((len(rows), len(kept)))
    drops = np.zeros((FOLDS, len(columns)))
    random = np.random.default_rng(seed)
    with threadpool_limits(1, user_api="openmp"):  # on a busy machine more wait for each other
        for number in range(FOLDS):
            here = np.flatnonzero(fold == number)
            there = fold != number
            model = _boosted_trees(categorical, len(kept), seed).fit(inputs[there], labels[there])
            scores[here] = model.predict_proba(inputs[here])
            some = random.permutation(here)[: _PERMUTED_ROWS // FOLDS]
            drops[number] = _importances(model, inputs[some], labels[some], random)
    auc, error = _mean_auc(labels, scores)
    weights = [
        FieldWeight(column.name, round(float(drop.mean()), 6))
        for column, drop in zip(columns, drops.T, strict=True)
        if drop.mean() > 0.002 and drop.min() > 0
    ]
    return Discrimination(
        auc=auc,
        low=max(auc - 1.96 * error, 0.0),
        high=min(auc + 1.96 * error, 1.0),
        rows=len(rows),
        # If the groups are not told apart, the fields that the model used are chance.
        fields=sorted(weights, key=lambda weight: -weight.drop) if auc - 1.96 * error > 0.5 else [],
    )


def _boosted_trees(categorical: list[bool], groups: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60 if groups == 2 else 30,  # a tree for each group
        max_leaf_nodes=15,
        learning_rate=0.15,
        min_samples_leaf=20,
        categorical_features=categorical,
        early_stopping=False,
        random_state=seed,
    )


def _encode(columns: Sequence[PreparedColumn]) -> tuple[Floats, list[bool]]:
    """Return numbers, and levels as codes by falling frequency; of texts the length."""
    inputs = np.full((len(columns[0].values), len(columns)), np.nan)
    categorical = []
    for place, column in enumerate(columns):
        levels = column.kind in ("category", "other")
        categorical.append(levels)
        if not levels:
            numbers = floats(column)
            inputs[:, place] = np.where(np.isfinite(numbers), numbers, np.nan)
            continue
        values = column.values.drop_nulls().alias("level")
        counts = values.value_counts(name="rows").sort("rows", "level", descending=[True, False])
        known = counts["level"].head(_LEVELS).to_list()
        if known:
            coded = column.values.replace_strict(
                known, [float(n) for n in range(len(known))], default=float(len(known))
            )
            missing = column.values.is_null().to_numpy()
            inputs[:, place] = np.where(missing, np.nan, coded.to_numpy())
    return inputs, categorical


def _stratified_folds(labels: Codes, seed: int) -> Codes:
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % FOLDS
    return fold


def _importances(model: Any, inputs: Floats, labels: Codes, random: np.random.Generator) -> Floats:
    """Return how much the AUC drops when one column at a time is shuffled."""
    count = inputs.shape[1]
    before, _ = _mean_auc(labels, model.predict_proba(inputs))
    drops = np.zeros(count)
    for place in range(count):
        shuffled = inputs.copy()
        shuffled[:, place] = random.permutation(shuffled[:, place])
        after, _ = _mean_auc(labels, model.predict_proba(shuffled))
        drops[place] = before - after
    return drops


def _mean_auc(labels: Codes, scores: Floats) -> tuple[float, float]:
    """Return the AUC, and its standard error, of each group against the rest, by their rows."""
    places = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    values, errors, rows = [], [], []
    for place in places:
        value, error = auc_with_error(scores[:, place], labels == place)
        if math.isfinite(value):
            values.append(value)
            errors.append(error)
            rows.append(float((labels == place).sum()))
    if not values:
        return 0.5, 0.5
    return float(np.average(values, weights=rows)), float(np.average(errors, weights=rows))


def auc_with_error(scores: Floats, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """
    Return the area under the ROC curve and its standard error; NaN without both classes.

    Source:
        DeLong, DeLong, Clarke-Pearson, Comparing the areas under two or more correlated ROC
        curves (Biometrics 44, 1988), by ranks as in Sun, Xu (IEEE SPL 21, 2014).
    """
    from scipy.stats import rankdata

    many, others = int(positive.sum()), int((~positive).sum())
    if not many or not others:
        return math.nan, math.nan
    ranks = rankdata(scores)
    above = (ranks[positive] - rankdata(scores[positive])) / others
    below = 1 - (ranks[~positive] - rankdata(scores[~positive])) / many
    variance = 0.0
    for part in (above, below):
        variance += float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.25
    return float(above.mean()), math.sqrt(variance)
