"""
The baseline rule: what a person could do without a model.

Either one answer always (the most frequent label, the mean), or the best rule
that asks about a single field, where chance does not explain it. A rule
that was learned on the rows that it is judged on would be flattered, so it is
learned on the training table, or cross-fitted: each fifth of the rows is answered
by a rule that was learned on the other four.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.columns import BaselineColumn, LevelColumn, NumericColumn
from clewline.evaluation.metrics import Floats, Integers, Interval
from clewline.evaluation.rule import ConstantRule, LevelSetRule, SimpleRule, ThresholdRule

FOLDS = 5
LEARNED_ROWS = 100_000
"""A rule with one question needs no more rows to be learned from."""
_LEAST = 5  # rows on each side of a question
_DOUBT = 0.01
"""A question is asked when chance would give its like in fewer than one table of a hundred."""


class Baseline(msgspec.Struct, frozen=True):
    """The rule in words, and its metrics on the rows that the model was measured on."""

    rule: str  # "always <=50K", "capital-gain > 5119 → >50K, else <=50K"
    learned_on: str  # "train", or "test, cross-fitted"
    metrics: dict[str, Interval]


class Question(NamedTuple):
    """A rule that asks about one field."""

    worth: float
    doubt: float  # probability that chance gives a field a question like this
    rule: SimpleRule


class Objective:
    """
    What a rule is to get right.

    Args:
        labels: How many labels there are; None for a regression.
        weights: What one right answer of each label is worth, shape (labels,).
    """

    def __init__(self, labels: int | None = None, weights: Floats | None = None) -> None:
        self.labels = labels
        self.weights = np.ones(labels or 0) if weights is None else weights

    def terms(self, truth: NDArray[np.generic]) -> Floats:
        """What sums over a side are made of: (n, labels), or (n, 2) of centred y and its square."""
        if self.labels is None:
            values = truth.astype(np.float64)
            values = values - values.mean()  # else squares of large values lose their spread
            return np.column_stack([values, values**2])
        return np.asarray(np.eye(self.labels)[truth.astype(np.int64)] * self.weights)

    def worth(self, sums: Floats, counts: Floats) -> Floats:
        """How good the best single answer to rows with these sums is; higher is better."""
        if self.labels is None:
            squares = sums[..., 0] ** 2
            return np.divide(squares, counts, out=np.zeros_like(squares), where=counts > 0)
        return np.asarray(sums.max(axis=-1))

    def doubt(self, sums: Floats, counts: Floats) -> float:
        """
        Give the probability that chance parts the answers as these groups do.

        By the likelihood ratio of groups and labels, or of the groups' means (F test).
        """
        if self.labels is None:
            return _doubt_of_means(sums, counts)
        table = np.divide(sums, self.weights, out=np.zeros_like(sums), where=self.weights > 0)
        return _doubt_of_counts(table)

    def answer(self, truth: NDArray[np.generic]) -> float:
        """The best single answer to rows: the index of a label, or the mean."""
        if self.labels is None:
            return float(truth.astype(np.float64).mean())
        counts = np.bincount(truth.astype(np.int64), minlength=self.labels)
        return float((counts * self.weights).argmax())

    def shares(self, truth: NDArray[np.generic]) -> Floats:
        """The share of each label, each counted once more than seen; empty for a regression."""
        if self.labels is None:
            return np.zeros(0)
        counts = np.bincount(truth.astype(np.int64), minlength=self.labels) + 1.0
        return np.asarray(counts / counts.sum())


def _doubt_of_means(sums: Floats, counts: Floats) -> float:
    from scipy import stats

    groups, rows = len(counts), counts.sum()
    means = (sums[:, 0] ** 2 / counts).sum()
    within = sums[:, 1].sum() - means
    between = means - sums[:, 0].sum() ** 2 / rows
    if groups < 2 or rows <= groups or between <= 0:
        return 1.0
    if within <= 0:
        return 0.0
    ratio = between / (groups - 1) / within * (rows - groups)
    return float(stats.f.sf(ratio, groups - 1, rows - groups))


def _doubt_of_counts(table: Floats) -> float:
    from scipy import stats

    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    parts = np.divide(table, expected, out=np.ones_like(table), where=table > 0)
    degrees = (len(table) - 1) * (table.shape[1] - 1)
    return float(stats.chi2.sf(2 * (table * np.log(parts)).sum(), degrees)) if degrees else 1.0


@dataclass(frozen=True, slots=True)
class FittedRule:
    """A rule with its answers."""

    rule: SimpleRule
    answers: Floats  # of each side: label index or mean
    shares: Floats  # of each side, of each label, shape (sides, labels); empty for a regression

    def predict(self, columns: dict[str, BaselineColumn], rows: int) -> tuple[Floats, Floats]:
        """Answers, shape (n,), and probabilities, shape (n, labels)."""
        sides = self.rule.sides(columns, rows)
        return self.answers[sides], self.shares[sides]

    def words(self, labels: Sequence[object]) -> str:
        """The rule in words; `labels` are empty for a regression."""
        if labels:
            return self.rule.words([str(labels[int(answer)]) for answer in self.answers])
        return self.rule.words([f"{answer:.4g}" for answer in self.answers])


def learn(
    columns: dict[str, BaselineColumn],
    truth: NDArray[np.generic],
    goal: Objective,
    *,
    seed: int = 0,
) -> FittedRule:
    """
    Learn the best rule.

    Args:
        columns: The fields, each of n rows.
        truth: Label indices, or the quantity, shape (n,), n > 0.
        goal: What is to be right.
        seed: Of the sample that is taken where there are more than 100,000 rows.
    """
    if len(truth) > LEARNED_ROWS:
        chosen = np.random.default_rng(seed).choice(len(truth), LEARNED_ROWS, replace=False)
        columns, truth = _taken(columns, chosen), truth[chosen]
    terms = goal.terms(truth)
    asked = [found for column in columns.values() for found in _questions(column, terms, goal)]
    clear = [question for question in asked if question.doubt * len(columns) < _DOUBT]
    if not clear:
        return _fitted(
            ConstantRule(), columns, truth, Objective(goal.labels)
        )  # the most frequent label
    return _fitted(max(clear, key=lambda question: question.worth).rule, columns, truth, goal)


def cross_fitted(
    columns: dict[str, BaselineColumn],
    truth: NDArray[np.generic],
    goal: Objective,
    *,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """
    Answer each row by a rule that was learned without its fifth of the rows.

    Returns:
        Answers, shape (n,), and probabilities, shape (n, labels).
    """
    rows = len(truth)
    fold = _folds(truth, np.random.default_rng(seed))
    answers, shares = np.zeros(rows), np.zeros((rows, goal.labels or 0))
    for number in range(fold.max() + 1):
        here, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        others = others if others.size else here
        fitted = learn(_taken(columns, others), truth[others], goal, seed=seed)
        answers[here], shares[here] = fitted.predict(_taken(columns, here), len(here))
    return answers, shares


def _folds(truth: NDArray[np.generic], random: np.random.Generator) -> Integers:
    """
    Part the rows, every part with the same mix of answers.

    A part with more of one label leaves fewer of it to learn from: at chance the
    rules would then be wrong more often than right.
    """
    order = random.permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    fold = np.empty(len(truth), dtype=np.int64)
    fold[order] = np.arange(len(truth)) % min(FOLDS, len(truth))
    return fold


def _questions(column: BaselineColumn, terms: Floats, goal: Objective) -> Iterator[Question]:
    """The best questions about a field, if there are any to ask."""
    if isinstance(column, NumericColumn):
        yield from _thresholds(column, terms, goal)
    else:
        yield from _level_sets(column, terms, goal)


def _thresholds(column: NumericColumn, terms: Floats, goal: Objective) -> Iterator[Question]:
    known = ~np.isnan(column.values)
    order = np.flatnonzero(known)[np.argsort(column.values[known], kind="stable")]
    values, sums = column.values[order], terms[order].cumsum(axis=0)
    cuts = np.flatnonzero(np.diff(values))  # last row of each distinct value but the largest
    cuts = cuts[(cuts + 1 >= _LEAST) & (len(values) - cuts - 1 >= _LEAST)]
    if not cuts.size:
        return
    upto, counts = sums[cuts], (cuts + 1).astype(np.float64)
    total = terms.sum(axis=0)  # null stands on the other side
    for above in (True, False) if not known.all() else (True,):
        side = sums[-1] - upto if above else upto
        count = len(values) - counts if above else counts
        worth = goal.worth(side, count) + goal.worth(total - side, len(terms) - count)
        best = int(worth.argmax())
        groups = np.stack([side[best], total - side[best]])
        doubt = goal.doubt(groups, np.array([count[best], len(terms) - count[best]]))
        rule = ThresholdRule(column.name, _between(values, cuts[best]), above, column.instants)
        yield Question(float(worth[best]), doubt * len(cuts), rule)


def _level_sets(column: LevelColumn, terms: Floats, goal: Objective) -> Iterator[Question]:
    groups = list(_by_level(column, terms))
    if not groups:
        return
    sums = np.stack([group[1] for group in groups])
    counts = np.array([float(group[2]) for group in groups])
    other_sums, other_count = terms.sum(axis=0) - sums.sum(axis=0), len(terms) - counts.sum()
    if other_count:
        sums, counts = np.vstack([sums, other_sums]), np.append(counts, other_count)
    doubt = goal.doubt(sums, counts)
    sets = _high_levels if goal.labels is None else _unusual_levels
    for rule in sets(column.name, groups, terms):
        yield Question(_worth(rule, column, terms, goal), doubt, rule)


Group = tuple[object, Floats, int]  # a level, its sums, its rows


def _unusual_levels(name: str, groups: list[Group], terms: Floats) -> Iterator[SimpleRule]:
    """Levels whose most frequent label is not that of all rows, by label."""
    usual = terms.sum(axis=0).argmax()
    sets: dict[int, list[object]] = {}
    for level, sums, _ in groups:
        if (label := int(sums.argmax())) != usual:
            sets.setdefault(label, []).append(level)
    if sets:
        yield LevelSetRule(name, tuple(tuple(levels) for _, levels in sorted(sets.items())))


def _high_levels(name: str, groups: list[Group], terms: Floats) -> Iterator[SimpleRule]:
    """The level with the highest mean, the two highest, and so on; the best set is among them."""
    ordered = sorted(groups, key=lambda group: float(-group[1][0] / group[2]))
    for size in range(1, len(ordered)):
        yield LevelSetRule(name, (tuple(level for level, _, _ in ordered[:size]),))


def _by_level(column: LevelColumn, terms: Floats) -> Iterator[Group]:
    """The levels that enough rows have."""
    rows: dict[object, list[int]] = {}
    for row, level in enumerate(column.values.tolist()):
        if level is not None:
            rows.setdefault(level, []).append(row)
    for level in sorted(rows, key=str):
        if len(rows[level]) >= _LEAST:
            yield level, terms[rows[level]].sum(axis=0), len(rows[level])


def _between(values: Floats, row: int) -> float:
    """The middle between a row's value and the next larger one, always below the latter."""
    low, high = float(values[row]), float(values[row + 1])
    middle = low / 2 + high / 2
    return middle if low <= middle < high else low


def _worth(rule: SimpleRule, column: BaselineColumn, terms: Floats, goal: Objective) -> float:
    sides = rule.sides({column.name: column}, len(terms))
    counts = np.bincount(sides).astype(np.float64)
    sums = np.stack([terms[sides == side].sum(axis=0) for side in range(len(counts))])
    return float(goal.worth(sums, counts).sum())


def _fitted(
    rule: SimpleRule,
    columns: dict[str, BaselineColumn],
    truth: NDArray[np.generic],
    goal: Objective,
) -> FittedRule:
    sides = rule.sides(columns, len(truth))
    parts = [truth[sides == side] for side in range(int(sides.max()) + 1)]
    answers = np.array([goal.answer(part if part.size else truth) for part in parts])
    return FittedRule(rule, answers, np.array([goal.shares(part) for part in parts]))


def _taken(columns: dict[str, BaselineColumn], rows: Integers) -> dict[str, BaselineColumn]:
    return {name: column.take(rows) for name, column in columns.items()}
