"""Fitting maps to calibrated probabilities."""

from __future__ import annotations

from typing import Literal

import numpy as np

from clewline.evaluation.calibration import CLIPPED, fit_logistic
from clewline.evaluation.metrics import Floats, Integers
from clewline.model.families.calibrated_model.probability_map import (
    BetaMap,
    IsotonicMap,
    Kind,
    ProbabilityMap,
    SigmoidMap,
    TemperatureMap,
    log_odds,
    logarithms,
)

NEAREST = 1e-9
"""Probabilities that are nearer to each other are one knot; a line between them would be so steep
that the last bit of a probability decides."""


def fit_map(
    kind: Kind,
    truth: Integers,
    probabilities: Floats,
    over: Literal["probability", "log-odds"] = "probability",
) -> ProbabilityMap:
    """
    Fit a map.

    Args:
        kind: The kind of map.
        truth: Label indices, shape (n,). For all kinds but "temperature" every label occurs.
        probabilities: Of the model, shape (n, labels).
        over: What a "sigmoid" is fitted over.
    """
    if kind == "temperature":
        return TemperatureMap(_best_temperature(truth, probabilities))
    mapped = [1] if probabilities.shape[1] == 2 else list(range(probabilities.shape[1]))
    pairs = [(probabilities[:, place], truth == place) for place in mapped]
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        fits = [
            IsotonicRegression(out_of_bounds="clip").fit(_join_near(each), hit)
            for each, hit in pairs
        ]
        return IsotonicMap(
            tuple(tuple(fit.X_thresholds_.tolist()) for fit in fits),
            tuple(tuple(fit.y_thresholds_.tolist()) for fit in fits),
        )
    if kind == "sigmoid":
        lines = []
        for each, hit in pairs:
            score = each if over == "probability" else log_odds(each)
            lines.append(_fit_finite(score[:, None], hit))
        slopes, intercepts = zip(*(line.tolist() for line in lines), strict=True)
        return SigmoidMap(slopes, intercepts, over)
    a, b, c = zip(*(_fit_beta(each, hit) for each, hit in pairs), strict=True)
    return BetaMap(a, b, c)


def _join_near(numbers: Floats) -> Floats:
    """Replace numbers that follow each other at less than `NEAREST` by the smallest of them."""
    order = np.argsort(numbers, kind="stable")
    ascending = numbers[order]
    begins = np.diff(ascending, prepend=-np.inf) >= NEAREST
    joined = np.empty_like(numbers)
    joined[order] = ascending[begins][begins.cumsum() - 1]
    return joined


def _fit_beta(probability: Floats, hit: Floats) -> tuple[float, float, float]:
    """Fit a, b and c; one that would be below 0 is left out, as in the paper."""
    of_label, of_others = logarithms(probability)
    both = np.column_stack([of_label, -of_others])
    a, b, c = _fit_finite(both, hit).tolist()
    if a < 0:
        b, c = _fit_finite(both[:, 1:], hit).tolist()
        return 0.0, max(b, 0.0), c
    if b < 0:
        a, c = _fit_finite(both[:, :1], hit).tolist()
        return max(a, 0.0), 0.0, c
    return a, b, c


def _fit_finite(features: Floats, hit: Floats) -> Floats:
    """
    Fit a logistic regression whose targets are a little inside of 0 and 1, so that no row is sure.

    Source:
        Platt (1999): with n rows of a label its target is (n + 1) / (n + 2).
    """
    positive, negative = float(hit.sum()), float((1 - hit.astype(np.float64)).sum())
    targets = np.where(hit, (positive + 1) / (positive + 2), 1 / (negative + 2))
    return fit_logistic(features, targets)


def _best_temperature(truth: Integers, probabilities: Floats) -> float:
    """Minimise the log loss over the temperature."""
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(probabilities, CLIPPED))
    rows = np.arange(len(truth))

    def loss(log_inverse: float) -> float:
        scaled = logs * np.exp(log_inverse)
        most = scaled.max(axis=1)
        total = np.log(np.exp(scaled - most[:, None]).sum(axis=1)) + most
        return float((total - scaled[rows, truth]).mean())

    found = minimize_scalar(loss, bounds=(-10, 10), options={"xatol": 1e-12})
    return float(np.exp(-found.x))
