"""What the answers are worth, in the project's own unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from clewline.errors import InvalidInput
from clewline.evaluation.answers import EvaluatedRows, ModelPredictions
from clewline.evaluation.bootstrap import interval_of
from clewline.evaluation.metrics import Floats, Integers, Interval
from clewline.signature.infer import Label

Costs = Mapping[Any, Mapping[Any, float]] | Sequence[Sequence[float]]
ValueFunction = Callable[[Any, Any], float]
CURVE = 101
"""Thresholds of the curve, evenly spaced from 0 to 1."""


class ValueCell(msgspec.Struct, frozen=True):
    """The rows of one true label that got one answer."""

    truth: Label
    answer: Label
    rows: int
    value: float  # of one such row


class BestThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """
    The threshold on the positive label's probability that is worth most on these rows.

    The answer is the positive label from the threshold on.
    """

    threshold: float
    per_row: Interval
    held_out: float  # per row, if the threshold is chosen on one half of the rows, for the other
    flat_low: float  # thresholds around it whose value lies within the interval of `per_row`
    flat_high: float
    gain: Interval  # per row, over the model's own choices; paired


class BusinessValue(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers to the test rows are worth; more is better."""

    unit: str
    per_row: Interval
    total: float
    rule: Interval  # of the plain rule, per row
    gain: Interval  # over the plain rule, per row; paired
    cells: tuple[ValueCell, ...] = ()  # of a classifier
    best: BestThreshold | None = None  # of a binary classifier with probabilities
    curve: tuple[tuple[float, float], ...] = ()  # threshold, value per row


def value_matrix(
    labels: Sequence[Label], costs: Costs | None, value: ValueFunction | None
) -> Floats:
    """
    Return what one row is worth, by true label and answer, shape (labels, labels).

    Args:
        labels: The labels, in the order of the matrix.
        costs: `costs[truth][answer]`, or a matrix in the order of the labels. A cost is a
            negative value; what is missing costs nothing.
        value: Returns what an answer is worth, given the answer and the truth.

    Raises:
        InvalidInput: A label is unknown, or a value is not a finite number.
    """
    size = len(labels)
    if costs is None:
        assert value is not None
        pairs = [[_call(value, answer, truth) for answer in labels] for truth in labels]
        return np.array(pairs, dtype=np.float64)
    if not isinstance(costs, Mapping):
        matrix = np.array([[_number(cost, "A cost") for cost in row] for row in costs])
        if matrix.shape != (size, size):
            raise InvalidInput(
                f"The costs have the shape {matrix.shape}, and there are {size} labels.",
                f"Give a row for each true label and a column for each answer, in the order "
                f"{list(labels)}; or a mapping.",
            )
        return -matrix
    place = {(type(label), label): index for index, label in enumerate(labels)}
    matrix = np.zeros((size, size))
    for truth, answers in costs.items():
        if not isinstance(answers, Mapping):
            raise InvalidInput(
                f"The costs of the true label {truth!r} are {answers!r}.",
                "Write {truth: {answer: cost}}.",
            )
        for answer, cost in answers.items():
            for label in (truth, answer):
                if (type(label), label) not in place:
                    raise InvalidInput(
                        f"The costs name the label {label!r}, which is none of {list(labels)}."
                    )
            at = place[type(truth), truth], place[type(answer), answer]
            matrix[at] = -_number(cost, "A cost")
    return matrix


def business_value(
    evaluated: EvaluatedRows,
    *,
    costs: Costs | None = None,
    value: ValueFunction | None = None,
    unit: str = "",
) -> BusinessValue:
    """
    Value the answers to the test rows, beside those of the plain rule.

    Args:
        evaluated: The rows.
        costs: As for `value_matrix`; of a classifier.
        value: As for `value_matrix`. For a regressor it is called with each row's answer and
            truth.
        unit: What the numbers count, such as "€".

    Raises:
        InvalidInput: As `value_matrix`; or a regressor has costs.

    Source:
        Costs by label: Elkan, The foundations of cost-sensitive learning (IJCAI 2001).
    """
    task, answers, rule = evaluated.task, evaluated.answers, evaluated.rule
    if not task.labels:
        if value is None:
            raise InvalidInput(
                "Costs by label belong to a classifier, and this model answers with numbers.",
                "Pass value=, a function of the answer and the truth.",
            )
        ours, theirs = _call_all(value, answers, task.truth), _call_all(value, rule, task.truth)
        return _valued(evaluated, ours, theirs, unit)
    matrix = value_matrix(task.labels, costs, value)
    truth = task.truth.astype(np.int64)
    chosen = answers.choices.astype(np.int64)
    found = _valued(
        evaluated, matrix[truth, chosen], matrix[truth, rule.choices.astype(np.int64)], unit
    )
    size = len(task.labels)
    counts = np.bincount(truth * size + chosen, minlength=size * size).reshape(size, size)
    cells = tuple(
        ValueCell(
            task.labels[row],
            task.labels[column],
            int(counts[row, column]),
            float(matrix[row, column]),
        )
        for row, column in np.argwhere(counts > 0).tolist()
    )
    if task.task != "binary" or answers.probabilities is None:
        return msgspec.structs.replace(found, cells=cells)
    scores = answers.probabilities[:, 1]
    curve = _Curve(scores, matrix[truth, 0], matrix[truth, 1])
    points = np.linspace(0, 1, CURVE)
    return msgspec.structs.replace(
        found,
        cells=cells,
        best=_best_threshold(evaluated, matrix, curve),
        curve=tuple(zip(points.tolist(), curve.at(points).tolist(), strict=True)),
    )


class _Curve:
    """The value per row at every threshold."""

    def __init__(self, scores: Floats, negative: Floats, positive: Floats) -> None:
        order = np.argsort(-scores, kind="stable")
        self.scores = scores[order]
        last = np.append(np.flatnonzero(np.diff(self.scores)), len(scores) - 1)
        gains = (positive - negative)[order].cumsum()[last]
        # The number of rows that are answered with the positive label: none, then ever more.
        self.cuts = np.append(0, last + 1)
        self.values = (negative.sum() + np.append(0.0, gains)) / len(scores)

    def thresholds(self) -> Floats:
        """Return a threshold for each cut: in the middle between two scores."""
        inner = self.cuts[1:-1]
        middle = self.scores[inner - 1] / 2 + self.scores[inner] / 2
        middle = np.where(middle > self.scores[inner], middle, self.scores[inner - 1])
        top = np.nextafter(self.scores[0], np.inf)
        # Never: above every score. Always: 0, or the lowest score.
        first = (self.scores[0] + 1) / 2 if self.scores[0] < 1 else top
        return np.concatenate([[max(first, top)], middle, [min(0.0, float(self.scores[-1]))]])

    def at(self, thresholds: Floats) -> Floats:
        """Return the value per row at thresholds."""
        rows = np.searchsorted(-self.scores, -thresholds, side="right")
        return np.asarray(self.values[np.searchsorted(self.cuts, rows)])


def _best_threshold(evaluated: EvaluatedRows, matrix: Floats, curve: _Curve) -> BestThreshold:
    task, answers = evaluated.task, evaluated.answers
    assert answers.probabilities is not None
    scores, truth = answers.probabilities[:, 1], task.truth.astype(np.int64)
    best, thresholds = int(curve.values.argmax()), curve.thresholds()
    threshold = float(thresholds[best])
    decided = (scores >= threshold).astype(np.int64)
    # Cells of truth, decision and the model's own choice.
    cells = truth * 4 + decided * 2 + answers.choices.astype(np.int64)
    shares = evaluated.bootstrap.counts(cells, 8)
    shares /= shares.sum(axis=1, keepdims=True)
    own = np.bincount(cells, minlength=8) / evaluated.rows
    worth = np.repeat(matrix.reshape(-1), 2)
    more = worth - matrix[[0, 0, 0, 0, 1, 1, 1, 1], [0, 1] * 4]
    per_row = interval_of(float(curve.values[best]), (shares * worth).sum(axis=1))
    within = curve.values >= per_row.low
    first, last = best, best
    while first > 0 and within[first - 1]:
        first -= 1
    while last < len(within) - 1 and within[last + 1]:
        last += 1
    return BestThreshold(
        threshold=threshold,
        per_row=per_row,
        held_out=_held_out_value(scores, matrix[truth, 0], matrix[truth, 1], evaluated.halves()),
        flat_low=float(thresholds[last]),
        flat_high=float(thresholds[first]),
        gain=interval_of(float((own * more).sum()), (shares * more).sum(axis=1)),
    )


def _held_out_value(scores: Floats, negative: Floats, positive: Floats, half: Integers) -> float:
    """Choose the threshold on each half of the rows, and value it on the other one."""
    total = 0.0
    for side in (0, 1):
        learn, test = np.flatnonzero(half == side), np.flatnonzero(half != side)
        if not learn.size or not test.size:
            learn = test = np.arange(len(scores))
        curve = _Curve(scores[learn], negative[learn], positive[learn])
        threshold = curve.thresholds()[curve.values.argmax()]
        decided = scores[test] >= threshold
        total += float(np.where(decided, positive[test], negative[test]).mean()) / 2
    return total


def _valued(evaluated: EvaluatedRows, ours: Floats, theirs: Floats, unit: str) -> BusinessValue:
    drawn = evaluated.bootstrap.means(np.column_stack([ours, theirs]))
    own, plain = float(ours.mean()), float(theirs.mean())
    return BusinessValue(
        unit=unit,
        per_row=interval_of(own, drawn[:, 0]),
        total=float(ours.sum()),
        rule=interval_of(plain, drawn[:, 1]),
        gain=interval_of(own - plain, drawn[:, 0] - drawn[:, 1]),
    )


def _call_all(value: ValueFunction, answers: ModelPredictions, truth: Any) -> Floats:
    pairs = zip(answers.choices.tolist(), truth.tolist(), strict=True)
    return np.array([_call(value, answer, true) for answer, true in pairs])


def _call(value: ValueFunction, answer: Any, truth: Any) -> float:
    try:
        found = value(answer, truth)
    except Exception as error:  # it is the project's function, and may raise anything
        raise InvalidInput(
            f"value(answer={answer!r}, truth={truth!r}) raised {type(error).__name__}: {error}",
            "Let it return a number for every pair.",
        ) from error
    return _number(found, f"value(answer={answer!r}, truth={truth!r})")


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what} is {value!r}, which is not a number.") from error
    if not np.isfinite(number):
        raise InvalidInput(f"{what} is {number}, which is not finite.")
    return number
