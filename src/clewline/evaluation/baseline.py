"""
The baseline rule: what a person could do without a model.

Either one answer for every row (the most frequent label, the mean), or the best rule that asks
about a single field, if chance does not explain it. A rule looks better than it is on the rows
that it was learned on. So it is learned on the training table, or cross-fitted: each fifth of
the rows is answered by a rule that was learned on the other four.

Source:
    Holte, Very simple classification rules perform well on most commonly used datasets
    (Machine Learning 11, 1993).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.columns import EvaluatedColumn, EvaluatedColumns, level_name
from clewline.evaluation.metrics import Floats, Integers, Interval
from clewline.signature import timestamps

FOLDS = 5
LEARNED_ROWS = 100_000
"""More rows do not improve a rule with one question."""
_LISTED_LEVELS = 6
_LEAST_ROWS = 5  # on each side of a question
_LARGEST_P = 0.01
"""A question counts if chance gives fewer than one table in a hundred as good a one."""


class Baseline(msgspec.Struct, frozen=True):
    """The rule, and its metrics on the rows that the model was measured on."""

    rule: str  # "always <=50K", "capital-gain > 5119 → >50K, else <=50K"
    learned_on: str  # "train", or "test, cross-fitted"
    metrics: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class SimpleRule:
    """
    A rule that sorts rows into groups, each of which gets one answer.

    Without a field all rows are in group 0. With a threshold, group 1 holds the rows above it
    (or up to it). With levels, each set of levels has a group, from 1. Every other row, and
    every null, is in group 0.
    """

    field: str = ""
    threshold: float | None = None
    above: bool = True
    is_datetime: bool = False
    level_sets: tuple[tuple[Any, ...], ...] = ()

    def groups(self, columns: EvaluatedColumns, rows: int) -> Integers:
        """Return the group of each row, shape (n,); all 0 if the column is missing."""
        column = columns.get(self.field)
        if column is None or column.is_numeric != (self.threshold is not None):
            return np.zeros(rows, dtype=np.int64)
        if self.threshold is not None:
            compare = np.greater if self.above else np.less_equal
            return np.asarray(compare(column.values, self.threshold)).astype(np.int64)
        group = np.zeros(len(column.levels or ()) + 1, dtype=np.int64)  # null, -1, is the last
        for number, levels in enumerate(self.level_sets, 1):
            group[column.codes_of(levels)] = number
        return np.asarray(group[column.values])

    def describe(self, answers: list[str]) -> str:
        """Write the rule with one answer per group."""
        if not self.field:
            return f"always {answers[0]}"
        if self.threshold is not None:
            write = timestamps.format_microseconds if self.is_datetime else "{:.15g}".format
            questions = [f"{'>' if self.above else '<='} {write(self.threshold)}"]
        else:
            questions = [_describe_levels(levels) for levels in self.level_sets]
        parts = [f"{self.field} {q} → {a}" for q, a in zip(questions, answers[1:], strict=True)]
        return f"{'; '.join(parts)}{';' if len(parts) > 1 else ','} else {answers[0]}"


class CandidateRule(NamedTuple):
    """A rule that asks about one field, and how good it is."""

    worth: float
    p_value: float  # probability that chance gives a field as good a question
    rule: SimpleRule


class Objective:
    """
    What a rule should get right.

    Args:
        labels: Number of labels; None for a regression.
        weights: What one right answer of each label is worth, shape (labels,).
    """

    def __init__(self, labels: int | None = None, weights: Floats | None = None) -> None:
        self.labels = labels
        self.weights = np.ones(labels or 0) if weights is None else weights

    def terms(self, truth: NDArray[np.generic]) -> Floats:
        """Return what group sums add up: (n, labels), or (n, 2) of centred y and its square."""
        if self.labels is None:
            values = truth.astype(np.float64)
            values = values - values.mean()  # else squares of large values lose their spread
            return np.column_stack([values, values**2])
        return np.asarray(np.eye(self.labels)[truth.astype(np.int64)] * self.weights)

    def worth(self, sums: Floats, counts: Floats) -> Floats:
        """Return how good the best single answer to a group is; higher is better."""
        if self.labels is None:
            squares = sums[..., 0] ** 2
            return np.divide(squares, counts, out=np.zeros_like(squares), where=counts > 0)
        return np.asarray(sums.max(axis=-1))

    def p_value(self, sums: Floats, counts: Floats) -> float:
        """
        Return the probability that chance separates the answers as these groups do.

        Args:
            sums: Sums of `terms` per group, shape (groups, labels or 2).
            counts: Rows per group, shape (groups,).

        Source:
            Labels: the likelihood-ratio (G) test, Wilks, The large-sample distribution of the
            likelihood ratio for testing composite hypotheses (Annals of Mathematical
            Statistics 9, 1938). Regressions: the F test of one-way analysis of variance,
            Fisher, Statistical Methods for Research Workers (1925).
        """
        from scipy import stats

        if self.labels is None:
            groups, rows = len(counts), counts.sum()
            means = (sums[:, 0] ** 2 / counts).sum()
            within, between = sums[:, 1].sum() - means, means - sums[:, 0].sum() ** 2 / rows
            if groups < 2 or rows <= groups or between <= 0:
                return 1.0
            if within <= 0:
                return 0.0
            ratio = between / (groups - 1) / within * (rows - groups)
            return float(stats.f.sf(ratio, groups - 1, rows - groups))
        table = np.divide(sums, self.weights, out=np.zeros_like(sums), where=self.weights > 0)
        table = np.rint(table[:, self.weights > 0])  # counts again, without rounding errors
        table = table[table.any(axis=1)][:, table.any(axis=0)]
        if min(table.shape) < 2:
            return 1.0
        test = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
        return float(test.pvalue)

    def answer(self, truth: NDArray[np.generic]) -> float:
        """Return the best single answer to rows: the index of a label, or the mean."""
        if self.labels is None:
            return float(truth.astype(np.float64).mean())
        counts = np.bincount(truth.astype(np.int64), minlength=self.labels)
        return float((counts * self.weights).argmax())

    def probabilities(self, truth: NDArray[np.generic]) -> Floats:
        """
        Return the probability of each label, shape (labels,); empty for a regression.

        Each label counts once more than it occurs (Laplace's rule of succession), so that no
        probability is 0.
        """
        if self.labels is None:
            return np.zeros(0)
        counts = np.bincount(truth.astype(np.int64), minlength=self.labels) + 1.0
        return np.asarray(counts / counts.sum())


@dataclass(frozen=True, slots=True)
class FittedRule:
    """A rule with its answers."""

    rule: SimpleRule
    answers: Floats  # per group: label index or mean
    probabilities: Floats  # shape (groups, labels); empty for a regression

    def predict(self, columns: EvaluatedColumns, rows: int) -> tuple[Floats, Floats]:
        """Return answers, shape (n,), and probabilities, shape (n, labels)."""
        groups = self.rule.groups(columns, rows)
        return self.answers[groups], self.probabilities[groups]

    def describe(self, labels: Sequence[object]) -> str:
        """Write the rule with its answers; `labels` is empty for a regression."""
        return self.rule.describe(
            [str(labels[int(a)]) if labels else f"{a:.4g}" for a in self.answers]
        )


def learn_rule(
    columns: EvaluatedColumns, truth: NDArray[np.generic], objective: Objective, *, seed: int = 0
) -> FittedRule:
    """
    Learn the best rule.

    Its question must be significant at 1 % after Bonferroni's correction for the number of
    fields and of thresholds.

    Args:
        columns: The fields, each of n rows.
        truth: Label indices, or the quantity, shape (n,), n > 0.
        objective: What the rule should get right.
        seed: Seed of the sample that is taken of more than 100,000 rows.

    Source:
        Dunn, Multiple comparisons among means (Journal of the American Statistical
        Association 56, 1961).
    """
    if len(truth) > LEARNED_ROWS:
        chosen = np.random.default_rng(seed).choice(len(truth), LEARNED_ROWS, replace=False)
        columns, truth = _take(columns, chosen), truth[chosen]
    terms = objective.terms(truth)
    candidates: list[CandidateRule] = []
    for column in columns.values():
        find_rules = _threshold_rules if column.is_numeric else _level_rules
        candidates.extend(find_rules(column, terms, objective))
    clear = [each for each in candidates if each.p_value * len(columns) < _LARGEST_P]
    if not clear:
        rule, objective = SimpleRule(), Objective(objective.labels)  # the most frequent label
    else:
        rule = max(clear, key=lambda candidate: candidate.worth).rule
    groups = rule.groups(columns, len(truth))
    parts = [truth[groups == group] for group in range(int(groups.max()) + 1)]
    answers = np.array([objective.answer(part if part.size else truth) for part in parts])
    return FittedRule(rule, answers, np.array([objective.probabilities(part) for part in parts]))


def cross_fit_rule(
    columns: EvaluatedColumns, truth: NDArray[np.generic], objective: Objective, *, seed: int = 0
) -> tuple[Floats, Floats]:
    """
    Answer each row by a rule that was learned without its fifth of the rows.

    Every fifth has the same mix of answers. A fifth with more of one label would leave fewer
    of it to learn from, and the rules would then be wrong more often than chance.

    Returns:
        Answers, shape (n,), and probabilities, shape (n, labels).

    Source:
        Kohavi, A study of cross-validation and bootstrap for accuracy estimation and model
        selection (IJCAI 1995).
    """
    rows = len(truth)
    order = np.random.default_rng(seed).permutation(rows)
    order = order[np.argsort(truth[order], kind="stable")]
    fold = np.empty(rows, dtype=np.int64)
    fold[order] = np.arange(rows) % min(FOLDS, rows)
    answers, probabilities = np.zeros(rows), np.zeros((rows, objective.labels or 0))
    for number in range(fold.max() + 1):
        here, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        others = others if others.size else here
        fitted = learn_rule(_take(columns, others), truth[others], objective, seed=seed)
        answers[here], probabilities[here] = fitted.predict(_take(columns, here), len(here))
    return answers, probabilities


def _threshold_rules(
    column: EvaluatedColumn, terms: Floats, objective: Objective
) -> Iterator[CandidateRule]:
    known = ~np.isnan(column.values)
    order = np.flatnonzero(known)[np.argsort(column.values[known], kind="stable")]
    values, sums = column.values[order], terms[order].cumsum(axis=0)
    cuts = np.flatnonzero(np.diff(values))  # last row of each distinct value but the largest
    cuts = cuts[(cuts + 1 >= _LEAST_ROWS) & (len(values) - cuts - 1 >= _LEAST_ROWS)]
    if not cuts.size:
        return
    upto, counts = sums[cuts], (cuts + 1).astype(np.float64)
    total = terms.sum(axis=0)  # null stands on the other side
    for above in (True, False) if not known.all() else (True,):
        side = sums[-1] - upto if above else upto
        count = len(values) - counts if above else counts
        worth = objective.worth(side, count) + objective.worth(total - side, len(terms) - count)
        best = int(worth.argmax())
        groups = np.stack([side[best], total - side[best]])
        p_value = objective.p_value(groups, np.array([count[best], len(terms) - count[best]]))
        low, high = float(values[cuts[best]]), float(values[cuts[best] + 1])
        middle = low / 2 + high / 2
        threshold = middle if low <= middle < high else low  # rounding must not reach `high`
        rule = SimpleRule(column.name, threshold, above, column.is_datetime)
        yield CandidateRule(float(worth[best]), p_value * len(cuts), rule)


def _level_rules(
    column: EvaluatedColumn, terms: Floats, objective: Objective
) -> Iterator[CandidateRule]:
    known, names = column.values >= 0, column.levels or ()
    counts = np.bincount(column.values[known], minlength=len(names)).astype(np.float64)
    used = np.flatnonzero(counts >= _LEAST_ROWS)
    if not used.size:
        return
    codes = column.values[known]
    by_level = [np.bincount(codes, term[known], minlength=len(names))[used] for term in terms.T]
    sums: Floats = np.stack(by_level, axis=1).astype(np.float64)
    counts, levels = counts[used], [names[code] for code in used]
    total = terms.sum(axis=0)
    if objective.labels is None:
        # The highest mean, the two highest, and so on; the best set is among them.
        order = np.argsort(-sums[:, 0] / counts, kind="stable")
        upto, sizes = sums[order].cumsum(axis=0)[:-1], counts[order].cumsum()[:-1]
        worth = objective.worth(upto, sizes) + objective.worth(total - upto, len(terms) - sizes)
        level_sets = [order[: int(worth.argmax()) + 1]] if worth.size else []
    else:
        # Levels whose most frequent label is not that of all rows, by label.
        labels = sums.argmax(axis=1)
        level_sets = [np.flatnonzero(labels == n) for n in np.unique(labels) if n != total.argmax()]
    if not level_sets:
        return
    group_sums = np.stack([sums[members].sum(axis=0) for members in level_sets])
    sizes = np.array([counts[members].sum() for members in level_sets])
    group_sums = np.vstack([group_sums, total - group_sums.sum(axis=0)])
    worth = objective.worth(group_sums, np.append(sizes, len(terms) - sizes.sum()))
    if rest := float(len(terms) - counts.sum()):
        sums = np.vstack([sums, total - sums.sum(axis=0)])
        counts = np.append(counts, rest)
    rule = SimpleRule(
        column.name, level_sets=tuple(tuple(levels[n] for n in each) for each in level_sets)
    )
    yield CandidateRule(float(worth.sum()), objective.p_value(sums, counts), rule)


def _take(columns: EvaluatedColumns, rows: Integers) -> EvaluatedColumns:
    return {name: column.take(rows) for name, column in columns.items()}


def _describe_levels(levels: tuple[Any, ...]) -> str:
    names = [level_name(level) for level in levels]
    if len(names) == 1:
        return f"is {names[0]}"
    more = f", … {len(names)} in all" if len(names) > _LISTED_LEVELS else ""
    return f"in {{{', '.join(names[:_LISTED_LEVELS])}{more}}}"
