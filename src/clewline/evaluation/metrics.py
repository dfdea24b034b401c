"""
Metrics of classification and regression, with bootstrap intervals.

A *measure* takes weights, shape (n,), and returns named values. If all weights are 1, these are
the metrics of the sample; if a weight is how often its row was drawn, those of a resample. So
rows are sorted once, not once per resample. The tests compare them with
scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Measure = Callable[[Floats], dict[str, float]]

SMALLER_IS_BETTER = frozenset({"log_loss", "brier", "mae", "rmse", "median_absolute_error"})

LEVEL = 0.95
RESAMPLES = 1000
_DRAWN_ROWS = 20_000_000  # in all, which takes seconds
_LEAST_RESAMPLES = 200


class Interval(msgspec.Struct, frozen=True):
    """A metric on the test rows, with its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = map(format_figure, (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def format_figure(value: float) -> str:
    """
    Write a figure: whole numbers with separators, others with four digits.

    >>> format_figure(1234.0), format_figure(0.86231)
    ('1,234', '0.8623')
    """
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def bootstrap_intervals(
    measure: Measure, rows: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """
    Measure a sample, and how much each metric would vary between samples of its size.

    Args:
        measure: What is measured.
        rows: Size of the sample, n.
        seed: Seed of the draws; equal seeds give equal intervals.
        resamples: How many times n rows are drawn with replacement.

    Returns:
        Every metric that the sample defines (no ROC without both labels). If a resample does
        not define a metric, the interval of that metric leaves it out.

    Source:
        Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile
        intervals).
    """
    values = {name: value for name, value in measure(np.ones(rows)).items() if np.isfinite(value)}
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(resamples):
        counts = np.bincount(random.integers(0, rows, rows), minlength=rows).astype(np.float64)
        for name, value in measure(counts).items():
            if name in drawn and np.isfinite(value):
                drawn[name].append(value)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {
        name: Interval(value, *np.quantile(drawn[name] or [value], tails).tolist())
        for name, value in values.items()
    }


def default_resamples(rows: int) -> int:
    """Return how many resamples take seconds: 1,000 up to 20,000 rows, never fewer than 200."""
    return min(RESAMPLES, max(_LEAST_RESAMPLES, _DRAWN_ROWS // max(rows, 1)))


def binary(truth: Integers, chosen: Integers, probabilities: Floats | None = None) -> Measure:
    """
    Return the measure of a binary classifier; index 1 is the positive label.

    Args:
        truth: Label indices, 0 or 1, shape (n,).
        chosen: Predicted label indices, shape (n,).
        probabilities: Shape (n, 2), each in [0, 1]; None if the classifier has none.

    Returns:
        accuracy, balanced_accuracy, precision, recall and f1, each in [0, 1]; with
        probabilities also roc_auc and average_precision in [0, 1], log_loss in nats
        (0 is best) and brier in [0, 1] (0 is best).

    Source:
        balanced_accuracy: Brodersen et al., The balanced accuracy and its posterior
        distribution (ICPR 2010). f1: van Rijsbergen, Information Retrieval (1979).
        brier: Brier, Verification of forecasts expressed in terms of probability (Monthly
        Weather Review 78, 1950).
    """
    parts = [_choices(truth, chosen, 2, macro=False)]
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
    Return the measure of a classifier of several labels.

    Args:
        truth: Label indices, shape (n,).
        chosen: Predicted label indices, shape (n,).
        labels: Number of labels.
        probabilities: Shape (n, labels), each in [0, 1]; None if the classifier has none.

    Returns:
        accuracy, balanced_accuracy, precision_macro, recall_macro and f1_macro, each in
        [0, 1]; with probabilities also log_loss in nats and, if every label occurs,
        roc_auc_ovr_macro in [0, 1]: the mean of each label's ROC AUC against the rest.
        precision_macro, recall_macro and f1_macro average over the labels that occur in
        `truth` or `chosen`; f1_macro is the mean of the labels' own F1.

    Source:
        precision_macro, recall_macro: Sokolova, Lapalme, A systematic analysis of performance
        measures for classification tasks (Information Processing & Management 45, 2009).
        f1_macro: Opitz, Burst, Macro F1 and Macro F1 (arXiv:1911.03347, 2019), the
        "averaged F1" there.
    """
    parts = [_choices(truth, chosen, labels, macro=True)]
    if probabilities is not None:
        ranks = [_ranking(truth == label, scores) for label, scores in enumerate(probabilities.T)]

        def one_against_rest(weights: Floats) -> dict[str, float]:
            areas = [rank(weights).get("roc_auc", np.nan) for rank in ranks]
            return {"roc_auc_ovr_macro": float(np.mean(areas))}

        parts.append(one_against_rest)
        parts.append(mean_measure({"log_loss": log_losses(truth, probabilities)}))
    return join_measures(parts)


def regression(truth: Floats, predicted: Floats) -> Measure:
    """
    Return the measure of a regressor.

    Args:
        truth: Shape (n,), finite.
        predicted: Shape (n,), finite, same unit.

    Returns:
        mae, rmse and median_absolute_error, each 0 or more in the target's unit; r2, at most 1
        and without unit: the share of the target's variance that is explained.
    """
    errors = np.abs(truth - predicted)
    order = np.argsort(errors, kind="stable")

    def measure(weights: Floats) -> dict[str, float]:
        total = float(weights.sum())
        upto = weights[order].cumsum()
        middle = np.searchsorted(upto, [(total - 1) // 2, total // 2], side="right")
        squared = _dot(weights, errors**2)
        spread = _dot(weights, (truth - _dot(weights, truth) / total) ** 2)
        return {
            "mae": _dot(weights, errors) / total,
            "rmse": float(np.sqrt(squared / total)),
            "median_absolute_error": float(errors[order[middle]].mean()),
            "r2": 1 - squared / spread if spread > 0 else np.nan,
        }

    return measure


def mean_measure(terms: dict[str, Floats]) -> Measure:
    """Return the measure of the weighted means of values, each of shape (n,)."""
    return lambda weights: {
        name: _dot(weights, values) / float(weights.sum()) for name, values in terms.items()
    }


def join_measures(parts: Sequence[Measure]) -> Measure:
    """Join measures of one sample."""
    return lambda weights: {name: value for part in parts for name, value in part(weights).items()}


def log_losses(truth: Integers, probabilities: Floats) -> Floats:
    """
    Return the negative log of the probability of each row's true label, shape (n,), in nats.

    Probabilities are clipped by float64's epsilon, which keeps the loss finite.

    Args:
        truth: Label indices, shape (n,).
        probabilities: Shape (n, labels), each in [0, 1].

    Source:
        Good, Rational decisions (Journal of the Royal Statistical Society B 14, 1952).
    """
    tiny = np.finfo(np.float64).eps
    of_truth = probabilities[np.arange(len(truth)), truth]
    return -np.log(np.clip(of_truth, tiny, 1 - tiny))


def _choices(truth: Integers, chosen: Integers, labels: int, *, macro: bool) -> Measure:
    """Return the measure of predicted labels: of label 1, or averaged over all (`macro`)."""
    cells = truth * labels + chosen

    def measure(weights: Floats) -> dict[str, float]:
        counts = np.bincount(cells, weights, labels * labels)
        confusion = counts.astype(np.float64, copy=False).reshape(labels, labels)
        hits, true, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
        present, seen = true > 0, true + called > 0
        scores = {
            "precision": _ratios(hits, called),
            "recall": _ratios(hits, true),
            "f1": _ratios(2 * hits, true + called),
        }
        averaged = {f"{name}_macro": float(each[seen].mean()) for name, each in scores.items()}
        return {
            "accuracy": float(hits.sum() / true.sum()),
            "balanced_accuracy": float((hits[present] / true[present]).mean()),
            **(averaged if macro else {name: float(each[1]) for name, each in scores.items()}),
        }

    return measure


def _ranking(positive: NDArray[np.bool_], scores: Floats) -> Measure:
    """
    Return the measure of ROC AUC and average precision; equal scores are one threshold.

    Source:
        ROC AUC: Hanley, McNeil, The meaning and use of the area under a receiver operating
        characteristic (ROC) curve (Radiology 143, 1982). Average precision, without
        interpolation: Zhu, Recall, precision and average precision (University of Waterloo,
        2004).
    """
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
        precision = _ratios(found, found + wrong)
        below = found - hits / 2
        area = {"roc_auc": _dot(false, below) / float(found[-1] * wrong[-1])} if wrong[-1] else {}
        return {**area, "average_precision": _dot(hits, precision) / float(found[-1])}

    return measure


def _dot(left: Floats, right: Floats) -> float:
    # Not `@`: BLAS threads add in an order of their own, and wait for each other on a busy machine.
    return float((left * right).sum())


def _ratios(parts: Floats, wholes: Floats) -> Floats:
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)
