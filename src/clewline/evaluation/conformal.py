"""
Split conformal prediction: sets of labels, or intervals, that hold the truth at a stated rate.

Held-out rows get scores: how badly an answer fits the truth. The set of a new row holds every
label whose score is at most a quantile of those. If the rows are exchangeable (drawn alike), the
truth is in the set at least as often as stated, whatever the model.

Source:
    Vovk, Gammerman, Shafer, Algorithmic learning in a random world (Springer, 2005). Lei, G'Sell,
    Rinaldo, Tibshirani, Wasserman, Distribution-free predictive inference for regression (JASA
    113, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.calibration import wilson_interval
from clewline.evaluation.metrics import Floats, Integers, Interval

Method = Literal["lac", "aps"]
By = Literal["class", "value"]

COVERAGES = (0.8, 0.9, 0.95, 0.99)
"""Those of the section of the evaluation record."""
VALUE_BINS = 5
"""Groups of a regression by its own answer, if intervals are made for each group."""


class ConformalLevel(msgspec.Struct, frozen=True, kw_only=True):
    """What sets or intervals of one stated coverage are like on rows that gave no scores."""

    coverage: float  # as stated
    found: Interval | None = None  # share of rows whose truth is inside; None: too few rows
    size: Interval | None = None  # mean labels in a set
    width: Interval | None = None  # mean width of an interval, in the target's unit
    empty: float | None = None  # share of sets without a label
    lowest_class: float | None = None  # `found` of the label for which it is lowest
    rows_needed: int  # scores that the coverage needs


class Conformal(msgspec.Struct, frozen=True, kw_only=True):
    """Coverage and size by stated coverage; each half of the rows is measured by the other."""

    rows: int
    method: str  # "lac", or "residual" for a regression
    levels: tuple[ConformalLevel, ...]


# ---- scores


def lac_scores(probabilities: Floats) -> Floats:
    """
    Return 1 minus the probability, for every label.

    Args:
        probabilities: Shape (n, labels).

    Source:
        Sadinle, Lei, Wasserman, Least ambiguous set-valued classifiers with bounded error levels
        (JASA 114, 2019): no other score gives smaller sets on average.
    """
    return np.asarray(1 - probabilities)


def aps_scores(probabilities: Floats, uniforms: Floats) -> Floats:
    """
    Return the sum of all larger probabilities and a random part of the label's own.

    Sets differ more in size than those of `lac_scores`: small for clear rows, large for doubtful
    ones. Without the random part the last label of every row would have the same score, and sets
    would hold all labels as soon as the truth is the last one too often.

    Args:
        probabilities: Shape (n, labels).
        uniforms: A number in [0, 1] for each row, shape (n,). An endpoint makes it of the
            prediction's id, so that a replay gives the same set.

    Source:
        Romano, Sesia, Candès, Classification with valid and adaptive coverage (NeurIPS 2020).
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    found = np.empty_like(probabilities)
    np.put_along_axis(found, order, sums, axis=1)
    return np.asarray(found - uniforms[:, None] * probabilities)


def label_scores(method: Method, probabilities: Floats, uniforms: Floats) -> Floats:
    """Return the score of every label, shape (n, labels); "lac" needs no `uniforms`."""
    return lac_scores(probabilities) if method == "lac" else aps_scores(probabilities, uniforms)


def uniforms_of(ids: Sequence[bytes]) -> Floats:
    """
    Return a number in [0, 1] for each id of 16 bytes, shape (n,); the same for the same id.

    Source:
        Steele, Lea, Flood, Fast splittable pseudorandom number generators (OOPSLA 2014): the
        finalizer of SplitMix64.
    """
    words = np.frombuffer(b"".join(ids), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    mixed = words[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, 1]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)) / 2.0**53)


def true_scores(scores: Floats, truth: Integers) -> Floats:
    """Return the score of each row's true label; a label that the model does not know has inf."""
    known = truth < scores.shape[1]
    found = np.full(len(truth), np.inf)
    found[known] = scores[known, truth[known]]
    return found


# ---- quantiles


def rows_needed(coverage: float) -> int:
    """
    Return the fewest scores that a coverage needs.

    >>> rows_needed(0.9), rows_needed(0.95), rows_needed(0.99)
    (9, 19, 99)
    """
    rows = max(1, math.floor(coverage / (1 - coverage)) - 1)
    while _rank(rows, coverage) > rows:
        rows += 1
    return rows


def conformal_quantile(scores: Floats, coverage: float) -> float:
    """
    Return the ⌈(n + 1) · coverage⌉-th smallest of n scores; inf if there are too few of them.

    >>> conformal_quantile(np.arange(1.0, 20.0), 0.9)
    18.0
    """
    rank = _rank(len(scores), coverage)
    if rank > len(scores):
        return math.inf
    return float(np.partition(scores, rank - 1)[rank - 1])


def _rank(rows: int, coverage: float) -> int:
    return math.ceil((rows + 1) * coverage - 1e-9)  # 0.95 · 20 is 19, whatever floats say


def group_quantiles(
    scores: Floats, groups: Integers, count: int, coverage: float
) -> tuple[Floats, Integers]:
    """
    Return a quantile for each group ("Mondrian"), so that each is covered at the stated rate.

    Args:
        scores: Shape (n,).
        groups: Of each row, shape (n,), below `count`.
        count: Number of groups.
        coverage: Stated.

    Returns:
        Quantiles, inf where a group has too few rows, and the rows of each group.

    Source:
        Vovk, Gammerman, Shafer (2005), section 4.5.
    """
    parts = [scores[groups == group] for group in range(count)]
    quantiles = np.array([conformal_quantile(part, coverage) for part in parts])
    return quantiles, np.array([len(part) for part in parts])


def value_edges(values: Floats, bins: int = VALUE_BINS) -> Floats:
    """Return the inner edges of bins of equal size; fewer where values are equal."""
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))


# ---- sets and intervals


def label_sets(
    method: Method, probabilities: Floats, thresholds: Floats | float, uniforms: Floats
) -> NDArray[np.bool_]:
    """
    Say for every label whether it is in the row's set, shape (n, labels).

    Args:
        method: "lac" or "aps". A set of "aps" always holds the most probable label.
        probabilities: Shape (n, labels).
        thresholds: One for all, for each label, or for each row (n, 1).
        uniforms: As of `aps_scores`.
    """
    inside = label_scores(method, probabilities, uniforms) <= thresholds
    if method == "aps":
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return np.asarray(inside)


# ---- the section of the record


def measure_label_sets(
    truth: Integers, probabilities: Floats, *, seed: int = 0, method: Method = "lac"
) -> Conformal:
    """
    Measure sets of labels at each of `COVERAGES`.

    Args:
        truth: Label indices, shape (n,).
        probabilities: Shape (n, labels).
        seed: Of the halves.
        method: Kind of score.
    """
    uniforms = np.random.default_rng(seed).random(len(truth))
    scores = true_scores(label_scores(method, probabilities, uniforms), truth)
    levels = []
    for coverage in COVERAGES:
        inside = np.zeros(probabilities.shape, dtype=bool)
        enough = True
        for here, other in _halves(len(truth), seed):
            threshold = conformal_quantile(scores[other], coverage)
            enough &= math.isfinite(threshold)
            inside[here] = label_sets(method, probabilities[here], threshold, uniforms[here])
        needed = rows_needed(coverage)
        if not enough:
            levels.append(ConformalLevel(coverage=coverage, rows_needed=needed))
            continue
        hit = inside[np.arange(len(truth)), np.minimum(truth, probabilities.shape[1] - 1)]
        sizes = inside.sum(axis=1)
        shares = [hit[truth == label].mean() for label in np.unique(truth)]
        levels.append(
            ConformalLevel(
                coverage=coverage,
                found=wilson_interval(float(hit.sum()), len(hit)),
                size=_mean_interval(sizes.astype(np.float64)),
                empty=float((sizes == 0).mean()),
                lowest_class=float(min(shares)),
                rows_needed=needed,
            )
        )
    return Conformal(rows=len(truth), method=method, levels=tuple(levels))


def measure_value_intervals(truth: Floats, answers: Floats, *, seed: int = 0) -> Conformal:
    """
    Measure intervals of a regression at each of `COVERAGES`.

    Args:
        truth: Shape (n,).
        answers: Of the model, shape (n,).
        seed: Of the halves.
    """
    residuals = np.abs(truth - answers)
    levels = []
    for coverage in COVERAGES:
        widths = np.empty(len(truth))
        for here, other in _halves(len(truth), seed):
            widths[here] = 2 * conformal_quantile(residuals[other], coverage)
        needed = rows_needed(coverage)
        if not np.isfinite(widths).all():
            levels.append(ConformalLevel(coverage=coverage, rows_needed=needed))
            continue
        hits = float((2 * residuals <= widths).sum())
        levels.append(
            ConformalLevel(
                coverage=coverage,
                found=wilson_interval(hits, len(truth)),
                width=_mean_interval(widths),
                rows_needed=needed,
            )
        )
    return Conformal(rows=len(truth), method="residual", levels=tuple(levels))


def cqr_scores(low: Floats, high: Floats, truth: Floats) -> Floats:
    """
    Return how far the truth is outside of predicted quantiles; below 0 inside of them.

    The interval of a new row is `[low - q, high + q]`, with q their conformal quantile.

    Args:
        low: The lower predicted quantile of each row, shape (n,).
        high: The upper one, shape (n,).
        truth: Shape (n,).

    Source:
        Romano, Patterson, Candès, Conformalized quantile regression (NeurIPS 2019).
    """
    return np.maximum(low - truth, truth - high)


def _halves(rows: int, seed: int) -> Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    order = np.random.default_rng(seed).permutation(rows)
    first, second = order[: rows // 2], order[rows // 2 :]
    return (first, second), (second, first)


def _mean_interval(values: Floats) -> Interval:
    """Return a mean with its 95 % interval by the normal approximation."""
    mean = float(values.mean())
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)
