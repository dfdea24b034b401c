"""Labels of the test rows that are probably wrong, by confident learning."""

from __future__ import annotations

import msgspec
import numpy as np

from clewline.evaluation.answers import EvaluatedRows
from clewline.evaluation.metrics import Floats, Integers
from clewline.signature.infer import Label

MOST_LISTED = 100
_SLACK = 1e-6  # by which a probability may miss its label's threshold


class LabelError(msgspec.Struct, frozen=True):
    """A row whose label should be reviewed."""

    row: int  # in the test table, from 0
    label: Label
    likely: Label
    confidence: float  # the model's probability of the row's own label


class MistakenPair(msgspec.Struct, frozen=True):
    """How many rows of one label probably belong to another."""

    label: Label
    likely: Label
    rows: int


class LabelErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Likely label errors; the test rows' own answers are out of sample."""

    count: int
    share: float
    listed: tuple[LabelError, ...]  # up to 100, the least confident first
    pairs: tuple[MistakenPair, ...]  # the most frequent first


def find_label_errors(evaluated: EvaluatedRows) -> LabelErrors | None:
    """
    Find rows whose label is probably wrong; None without probabilities.

    The probabilities must be out of sample, as a model's answers to test rows are.

    Source:
        Northcutt, Jiang, Chuang, Confident learning (Journal of Artificial Intelligence
        Research 70, 2021): the calibrated confident joint, and pruning by noise rate.
    """
    probabilities, labels = evaluated.answers.probabilities, evaluated.task.labels
    if probabilities is None or len(labels) < 2:
        return None
    truth = evaluated.task.truth.astype(np.int64)
    likely = mistaken_labels(truth, probabilities)
    rows = np.flatnonzero(likely >= 0)
    own = probabilities[rows, truth[rows]]
    order = rows[np.argsort(own, kind="stable")]
    pairs, counts = np.unique(truth[rows] * len(labels) + likely[rows], return_counts=True)
    return LabelErrors(
        count=len(rows),
        share=len(rows) / len(truth),
        listed=tuple(
            LabelError(
                row, labels[truth[row]], labels[likely[row]], float(probabilities[row, truth[row]])
            )
            for row in order[:MOST_LISTED].tolist()
        ),
        pairs=tuple(
            MistakenPair(labels[pairs[n] // len(labels)], labels[pairs[n] % len(labels)], many)
            for n in np.argsort(-counts, kind="stable")
            if (many := int(counts[n]))
        ),
    )


def mistaken_labels(truth: Integers, probabilities: Floats) -> Integers:
    """
    Return the label that each row probably has instead of its own, -1 for none; shape (n,).

    Args:
        truth: Label indices, shape (n,).
        probabilities: Out of sample, shape (n, labels), each in [0, 1].
    """
    joint = confident_joint(truth, probabilities)
    answered = probabilities.argmax(axis=1)
    likely = np.full(len(truth), -1, dtype=np.int64)
    margins = np.full(len(truth), -np.inf)
    for label in range(len(joint)):
        rows = np.flatnonzero(truth == label)
        for other in np.flatnonzero(joint[label]):
            if other == label or not rows.size:
                continue
            margin = probabilities[rows, other] - probabilities[rows, label]
            worst = np.argsort(-margin, kind="stable")[: joint[label, other]]
            found, how_far = rows[worst], margin[worst]
            better = (how_far > margins[found]) & (answered[found] != label)
            likely[found[better]], margins[found[better]] = other, how_far[better]
    return likely


def confident_joint(truth: Integers, probabilities: Floats) -> Integers:
    """
    Estimate how many rows have each pair of given and true label, shape (labels, labels).

    A row counts as a label if its probability of it is at least the mean over the rows that
    bear the label. The counts of each given label are scaled to its number of rows.
    """
    labels = probabilities.shape[1]
    counts = np.bincount(truth, minlength=labels)
    thresholds = np.full(labels, np.inf)
    for label in np.flatnonzero(counts):
        thresholds[label] = probabilities[truth == label, label].mean()
    confident = probabilities >= thresholds - _SLACK
    rows = np.flatnonzero(confident.any(axis=1))
    guess = np.where(confident[rows], probabilities[rows], -1.0).argmax(axis=1)
    joint = np.bincount(truth[rows] * labels + guess, minlength=labels**2).reshape(labels, labels)
    np.fill_diagonal(joint, np.maximum(np.diag(joint), 1))
    scaled = joint * (counts / np.maximum(joint.sum(axis=1), 1))[:, None]
    return np.asarray(np.rint(scaled), dtype=np.int64)
