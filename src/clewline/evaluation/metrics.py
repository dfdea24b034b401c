"""
The usual metrics of classification and regression, with bootstrap intervals.

A *measure* takes weights, shape (n,), one a row, and gives named values. All ones
give the metrics of the sample; how often each row was drawn gives those of a
resample. So rows are sorted once, not once a resample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Measure = Callable[[Floats], dict[str, float]]

LEVEL = 0.95
RESAMPLES = 1000
_BUDGET = 20_000_000  # rows drawn in all, which takes seconds
_LEAST = 200


class Interval(msgspec.Struct, frozen=True):
    """A metric on the test rows, and its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap_intervals(
    measure: Measure, rows: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """
    Measure a sample and how much each metric would vary between samples of its size.

    Args:
        measure: What is measured.
        rows: Size of the sample, n.
        seed: Of the draws; equal seeds give equal intervals.
        resamples: How many times n rows are drawn with replacement.

    Returns:
        Every metric that the sample defines (no ROC without both labels).
        A resample that does not define a metric is left out of its interval.

    Source:
        Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    values = {name: value for name, value in measure(np.ones(rows)).items() if np.isfinite(value)}
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(resamples):
        counts = np.bincount(random.integers(0, rows, rows), minlength=rows).astype(np.float64)
        for name, value in measure(counts).items():
            if name in drawn and np.isfinite(value):
                drawn[name].append(value)
    return {name: _interval(value, drawn[name]) for name, value in values.items()}


def default_resamples(rows: int) -> int:
    """Choose how many resamples seconds allow: 1,000 up to 20,000 rows, never below 200."""
    return min(RESAMPLES, max(_LEAST, _BUDGET // max(rows, 1)))


def binary(truth: Integers, chosen: Integers, probabilities: Floats | None = None) -> Measure:
    """
    Make the measure of a binary classifier; index 1 is the positive label.

    Args:
        truth: Label indices, shape (n,).
        chosen: Predicted label indices, shape (n,).
        probabilities: Shape (n, 2), or None from a classifier that has none.

    Returns:
        accuracy, balanced_accuracy, precision, recall, f1; with probabilities
        roc_auc, average_precision, log_loss, brier.
    """
    parts = [_with_positive(truth, chosen)]
    if probabilities is not None:
        parts.append(_ranking(truth == 1, probabilities[:, 1]))
        losses = {
            "log_loss": log_losses(truth, probabilities),
            "brier": (probabilities[:, 1] - (truth == 1)) ** 2,
        }
        parts.append(mean_measure(losses))
    return join_measures(parts)


def multiclass(
    truth: Integers, chosen: Integers, labels: int, probabilities: Floats | None = None
) -> Measure:
    """
    Make the measure of a classifier of several labels.

    Args:
        truth: Label indices, shape (n,).
        chosen: Predicted label indices, shape (n,).
        labels: How many labels there are.
        probabilities: Shape (n, labels), or None from a classifier that has none.

    Returns:
        accuracy, balanced_accuracy, precision_macro, recall_macro, f1_macro; with
        probabilities log_loss, and roc_auc_ovr_macro where every label occurs.
    """
    parts = [_macro(truth, chosen, labels)]
    if probabilities is not None:
        parts.append(_one_against_rest(truth, probabilities))
        parts.append(mean_measure({"log_loss": log_losses(truth, probabilities)}))
    return join_measures(parts)


def regression(truth: Floats, predicted: Floats) -> Measure:
    """
    Make the measure of a regressor.

    Args:
        truth: Shape (n,).
        predicted: Shape (n,), same unit.

    Returns:
        mae, rmse, median_absolute_error in the target's unit; r2 without unit.
    """
    errors = np.abs(truth - predicted)
    median = _median(errors)

    def measure(weights: Floats) -> dict[str, float]:
        total = float(weights.sum())
        squared = _dot(weights, errors**2)
        spread = _dot(weights, (truth - _dot(weights, truth) / total) ** 2)
        return {
            "mae": _dot(weights, errors) / total,
            "rmse": float(np.sqrt(squared / total)),
            "median_absolute_error": median(weights),
            "r2": 1 - squared / spread if spread > 0 else np.nan,
        }

    return measure


def mean_measure(terms: dict[str, Floats]) -> Measure:
    """Make a measure of weighted means of values, one a row."""
    return lambda weights: {
        name: _dot(weights, values) / float(weights.sum()) for name, values in terms.items()
    }


def join_measures(parts: Sequence[Measure]) -> Measure:
    """Join measures of one sample."""
    return lambda weights: {name: value for part in parts for name, value in part(weights).items()}


def log_losses(truth: Integers, probabilities: Floats) -> Floats:
    """Give the negative log of the probability of the true label, shape (n,), in nats."""
    tiny = np.finfo(np.float64).eps
    given = probabilities[np.arange(len(truth)), truth]
    return -np.log(np.clip(given, tiny, 1 - tiny))


def _with_positive(truth: Integers, chosen: Integers) -> Measure:
    confusion = _confusion(truth, chosen, 2)

    def measure(weights: Floats) -> dict[str, float]:
        table = confusion(weights)
        hits, misses, false = table[1, 1], table[1, 0], table[0, 1]
        return {
            **_accuracies(table),
            "precision": _share(hits, hits + false),
            "recall": _share(hits, hits + misses),
            "f1": _share(2 * hits, 2 * hits + misses + false),
        }

    return measure


def _macro(truth: Integers, chosen: Integers, labels: int) -> Measure:
    confusion = _confusion(truth, chosen, labels)

    def measure(weights: Floats) -> dict[str, float]:
        table = confusion(weights)
        hits, true, called = np.diag(table), table.sum(axis=1), table.sum(axis=0)
        seen = true + called > 0
        return {
            **_accuracies(table),
            "precision_macro": float(_shares(hits, called)[seen].mean()),
            "recall_macro": float(_shares(hits, true)[seen].mean()),
            "f1_macro": float(_shares(2 * hits, true + called)[seen].mean()),
        }

    return measure


def _accuracies(table: Floats) -> dict[str, float]:
    true = table.sum(axis=1)
    present = true > 0
    hits = np.diag(table)
    return {
        "accuracy": float(hits.sum() / true.sum()),
        "balanced_accuracy": float((hits[present] / true[present]).mean()),
    }


def _confusion(truth: Integers, chosen: Integers, labels: int) -> Callable[[Floats], Floats]:
    cells = truth * labels + chosen

    def confusion(weights: Floats) -> Floats:
        counts = np.bincount(cells, weights, labels * labels)
        return counts.astype(np.float64, copy=False).reshape(labels, labels)

    return confusion


def _ranking(positive: NDArray[np.bool_], scores: Floats) -> Measure:
    """ROC AUC and average precision; equal scores count as one threshold."""
    order = np.argsort(-scores, kind="stable")
    first = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    hit = positive[order]

    def measure(weights: Floats) -> dict[str, float]:
        sorted_weights = weights[order]
        hits = np.add.reduceat(sorted_weights * hit, first)
        false = np.add.reduceat(sorted_weights * ~hit, first)
        found, wrong = hits.cumsum(), false.cumsum()
        if not found[-1]:
            return {}
        drawn = found + wrong > 0
        precision = np.divide(found, found + wrong, out=np.zeros_like(found), where=drawn)
        below = found - hits / 2
        area = {"roc_auc": _dot(false, below) / float(found[-1] * wrong[-1])} if wrong[-1] else {}
        return {**area, "average_precision": _dot(hits, precision) / float(found[-1])}

    return measure


def _one_against_rest(truth: Integers, probabilities: Floats) -> Measure:
    parts = [
        _ranking(truth == label, probabilities[:, label]) for label in range(probabilities.shape[1])
    ]

    def measure(weights: Floats) -> dict[str, float]:
        areas = [part(weights).get("roc_auc", np.nan) for part in parts]
        return {"roc_auc_ovr_macro": float(np.mean(areas))}

    return measure


def _median(values: Floats) -> Callable[[Floats], float]:
    order = np.argsort(values, kind="stable")
    ascending = values[order]

    def median(weights: Floats) -> float:
        """Median of values, each standing as often as its weight says."""
        upto = weights[order].cumsum()
        lower = np.searchsorted(upto, (upto[-1] - 1) // 2, side="right")
        upper = np.searchsorted(upto, upto[-1] // 2, side="right")
        return float((ascending[lower] + ascending[upper]) / 2)

    return median


def _dot(left: Floats, right: Floats) -> float:
    # Not `@`: BLAS threads add in an order of their own, and wait for each other on a busy machine.
    return float((left * right).sum())


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _shares(parts: Floats, wholes: Floats) -> Floats:
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    if not drawn:
        return Interval(value, value, value)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
