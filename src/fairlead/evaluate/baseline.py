"""
The baseline rule: what a person could do without a model.

Either one answer always (the most frequent label, the mean), or the best rule
that asks about a single field, when it does clearly better than that. A rule
that was learned on the rows that it is judged on would be flattered, so it is
learned on the training table, or cross-fitted: each fifth of the rows is answered
by a rule that was learned on the other four.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead.evaluate.columns import Column, Levels, Numbers
from fairlead.evaluate.metrics import Floats, Integers, Interval
from fairlead.evaluate.rule import Above, Always, Among, Rule

FOLDS = 5
LEARNED_ROWS = 100_000
"""A rule with one question needs no more rows to be learned from."""
_LEAST = 5  # rows on each side of a question
_CLEARLY = 3.0  # standard errors, because many questions were tried


class Baseline(msgspec.Struct, frozen=True):
    """The rule in words, and its metrics on the rows that the model was measured on."""

    rule: str  # "always <=50K", "capital-gain > 5119 → >50K, else <=50K"
    learned_on: str  # "train", or "test, cross-fitted"
    metrics: dict[str, Interval]


class Goal:
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
        """What the sums over a side are made of, shape (n, labels), or (n, 1)."""
        if self.labels is None:
            return truth.astype(np.float64)[:, None]
        return np.asarray(np.eye(self.labels)[truth.astype(np.int64)] * self.weights)

    def worth(self, sums: Floats, counts: Floats) -> Floats:
        """How good the best single answer to rows with these sums is; higher is better."""
        if self.labels is None:
            squares = sums[..., 0] ** 2
            return np.divide(squares, counts, out=np.zeros_like(squares), where=counts > 0)
        return np.asarray(sums.max(axis=-1))

    def answer(self, sums: Floats, count: float) -> float:
        """The best single answer: the index of a label, or the mean."""
        if self.labels is None:
            return float(sums[0] / count) if count else 0.0
        return float(sums.argmax())

    def shares(self, truth: NDArray[np.generic]) -> Floats:
        """The share of each label, each counted once more than seen; empty for a regression."""
        if self.labels is None:
            return np.zeros(0)
        counts = np.bincount(truth.astype(np.int64), minlength=self.labels) + 1.0
        return np.asarray(counts / counts.sum())

    def scores(self, truth: NDArray[np.generic], answers: Floats) -> Floats:
        """What each row's answer is worth, shape (n,)."""
        if self.labels is None:
            return np.asarray(-((truth.astype(np.float64) - answers) ** 2))
        truth = truth.astype(np.int64)
        return np.asarray(self.weights[truth] * (truth == answers))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A rule with its answers."""

    rule: Rule
    answers: Floats  # of each side: label index or mean
    shares: Floats  # of each side, of each label, shape (sides, labels); empty for a regression

    def predict(self, columns: dict[str, Column], rows: int) -> tuple[Floats, Floats]:
        """Answers, shape (n,), and probabilities, shape (n, labels)."""
        sides = self.rule.sides(columns, rows)
        return self.answers[sides], self.shares[sides]

    def words(self, labels: Sequence[object]) -> str:
        """The rule in words; `labels` are empty for a regression."""
        if labels:
            return self.rule.words([str(labels[int(answer)]) for answer in self.answers])
        return self.rule.words([f"{answer:.4g}" for answer in self.answers])


def learn(
    columns: dict[str, Column], truth: NDArray[np.generic], goal: Goal, *, seed: int = 0
) -> Fitted:
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
    always = _fitted(Always(), columns, truth, goal)
    candidates = [found for column in columns.values() for found in _questions(column, terms, goal)]
    if not candidates:
        return always
    best = max(candidates, key=lambda candidate: candidate[0])[1]
    asking = _fitted(best, columns, truth, goal)
    return asking if _clearly_better(asking, always, columns, truth, goal) else always


def cross_fitted(
    columns: dict[str, Column], truth: NDArray[np.generic], goal: Goal, *, seed: int = 0
) -> tuple[Floats, Floats]:
    """
    Answer each row by a rule that was learned without its fifth of the rows.

    Returns:
        Answers, shape (n,), and probabilities, shape (n, labels).
    """
    rows = len(truth)
    fold = np.random.default_rng(seed).permutation(rows) % min(FOLDS, rows)
    answers, shares = np.zeros(rows), np.zeros((rows, goal.labels or 0))
    for number in range(fold.max() + 1):
        here, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        others = others if others.size else here
        fitted = learn(_taken(columns, others), truth[others], goal, seed=seed)
        answers[here], shares[here] = fitted.predict(_taken(columns, here), len(here))
    return answers, shares


def _questions(column: Column, terms: Floats, goal: Goal) -> Iterator[tuple[float, Rule]]:
    """The best question about a field, with its worth, if there is one to ask."""
    if isinstance(column, Numbers):
        yield from _thresholds(column, terms, goal)
    elif goal.labels is None:
        yield from _high_levels(column, terms, goal)
    else:
        yield from _sets(column, terms, goal)


def _thresholds(column: Numbers, terms: Floats, goal: Goal) -> Iterator[tuple[float, Rule]]:
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
        rule = Above(column.name, _between(values, cuts[best]), above, column.instants)
        yield float(worth[best]), rule


def _between(values: Floats, row: int) -> float:
    """The middle between a row's value and the next larger one, always below the latter."""
    low, high = float(values[row]), float(values[row + 1])
    middle = low / 2 + high / 2
    return middle if low <= middle < high else low


def _sets(column: Levels, terms: Floats, goal: Goal) -> Iterator[tuple[float, Rule]]:
    """Levels whose most frequent label is not that of all rows, by label."""
    usual = terms.sum(axis=0).argmax()
    sets: dict[int, list[object]] = {}
    for level, sums, count in _by_level(column, terms):
        label = int(sums.argmax())
        if count >= _LEAST and label != usual:
            sets.setdefault(label, []).append(level)
    if sets:
        rule = Among(column.name, tuple(tuple(levels) for _, levels in sorted(sets.items())))
        yield _worth(rule, column, terms, goal), rule


def _high_levels(column: Levels, terms: Floats, goal: Goal) -> Iterator[tuple[float, Rule]]:
    """The levels with the highest means, as many as parts the rows best."""
    groups = [group for group in _by_level(column, terms) if group[2] >= _LEAST]
    groups.sort(key=lambda group: float(-group[1][0] / group[2]))
    rules = [
        Among(column.name, (tuple(level for level, _, _ in groups[:size]),))
        for size in range(1, len(groups))
    ]
    if rules:
        worths = [_worth(rule, column, terms, goal) for rule in rules]
        best = int(np.argmax(worths))
        yield worths[best], rules[best]


def _by_level(column: Levels, terms: Floats) -> Iterator[tuple[object, Floats, int]]:
    rows: dict[object, list[int]] = {}
    for row, level in enumerate(column.values.tolist()):
        if level is not None:
            rows.setdefault(level, []).append(row)
    for level in sorted(rows, key=str):
        yield level, terms[rows[level]].sum(axis=0), len(rows[level])


def _worth(rule: Rule, column: Column, terms: Floats, goal: Goal) -> float:
    sides = rule.sides({column.name: column}, len(terms))
    counts = np.bincount(sides).astype(np.float64)
    sums = np.stack([terms[sides == side].sum(axis=0) for side in range(len(counts))])
    return float(goal.worth(sums, counts).sum())


def _fitted(
    rule: Rule, columns: dict[str, Column], truth: NDArray[np.generic], goal: Goal
) -> Fitted:
    sides, terms = rule.sides(columns, len(truth)), goal.terms(truth)
    answers, shares = [], []
    for side in range(int(sides.max()) + 1):
        here = sides == side
        answers.append(goal.answer(terms[here].sum(axis=0), float(here.sum())))
        shares.append(goal.shares(truth[here]))
    return Fitted(rule, np.array(answers), np.array(shares))


def _clearly_better(
    asking: Fitted,
    always: Fitted,
    columns: dict[str, Column],
    truth: NDArray[np.generic],
    goal: Goal,
) -> bool:
    rows = len(truth)
    gain = goal.scores(truth, asking.predict(columns, rows)[0])
    gain = gain - goal.scores(truth, always.predict(columns, rows)[0])
    return bool(gain.sum() > _CLEARLY * np.sqrt((gain**2).sum()))


def _taken(columns: dict[str, Column], rows: Integers) -> dict[str, Column]:
    return {name: column.take(rows) for name, column in columns.items()}
