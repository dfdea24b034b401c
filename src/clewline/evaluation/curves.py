"""What a classifier gives at every threshold on a label's probability: ROC and precision-recall."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.metrics import Floats, Integers
from clewline.signature.infer import Label

POINTS = 101
"""Largest number of points that are kept of a curve."""

DRAWN_LABELS = 10
"""Labels of which curves are kept, the most frequent ones."""


class ThresholdPoint(msgspec.Struct, frozen=True):
    """What happens if every row from a probability on is answered with the label."""

    threshold: float
    false_positive_rate: float
    recall: float
    precision: float


class ThresholdCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The points of one label, from the highest threshold down."""

    label: Label
    rows: int  # of the label
    points: list[ThresholdPoint]


def measure_curves(
    truth: Integers, probabilities: Floats, labels: tuple[Label, ...]
) -> list[ThresholdCurve]:
    """
    Measure the curves of a label, or of each of several.

    Args:
        truth: Label indices, shape (n,).
        probabilities: Shape (n, labels).
        labels: With two of them, only the second has a curve.

    Returns:
        A curve of each label that some rows have and others lack; the most frequent ten.

    Source:
        Fawcett, An introduction to ROC analysis (Pattern Recognition Letters 27, 2006).
    """
    counts = np.bincount(truth, minlength=len(labels))
    places = [1] if len(labels) == 2 else np.argsort(-counts, kind="stable")[:DRAWN_LABELS].tolist()
    return [
        ThresholdCurve(
            label=labels[place],
            rows=int(counts[place]),
            points=_points(truth == place, probabilities[:, place]),
        )
        for place in places
        if 0 < counts[place] < len(truth)
    ]


def _points(positive: NDArray[np.bool_], scores: Floats) -> list[ThresholdPoint]:
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    found = positive[order].cumsum()[last]
    wrong = last + 1 - found
    recall, false_rate = found / found[-1], wrong / wrong[-1]
    # Evenly along the curve, so that its bends are kept.
    way = np.concatenate([[0.0], (np.abs(np.diff(recall)) + np.abs(np.diff(false_rate))).cumsum()])
    places = np.unique(np.searchsorted(way, np.linspace(0, way[-1], POINTS)).clip(0, len(way) - 1))
    return [
        ThresholdPoint(
            threshold=float(scores[order][last[place]]),
            false_positive_rate=float(false_rate[place]),
            recall=float(recall[place]),
            precision=float(found[place] / (last[place] + 1)),
        )
        for place in places
    ]
