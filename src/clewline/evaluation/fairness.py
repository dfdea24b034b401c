"""How a model treats the groups of protected fields."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from clewline.errors import InvalidInput
from clewline.evaluation.answers import EvaluatedRows
from clewline.evaluation.bootstrap import interval_of
from clewline.evaluation.columns import EvaluatedColumn, require_column, value_groups
from clewline.evaluation.metrics import Floats, Integers, Interval
from clewline.signature.infer import Label

LEAST_ROWS = 30
"""Groups with fewer rows are marked as small, and left out of differences and ratios."""
MOST_GROUPS = 50
"""Groups of one field; the smaller ones are put together as "other"."""


class GroupRates(msgspec.Struct, frozen=True):
    """One group. A rate whose denominator has no rows is left out."""

    group: str
    rows: int
    small: bool
    rates: dict[str, Interval]


class Disparity(msgspec.Struct, frozen=True):
    """How far the groups lie apart in one rate."""

    difference: Interval  # the highest rate minus the lowest
    ratio: Interval | None  # the lowest divided by the highest; None if that is 0
    lowest: str  # the groups
    highest: str


class ProtectedField(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of one field, the largest first."""

    groups: tuple[GroupRates, ...]
    disparities: dict[str, Disparity]  # by rate, over the groups that are not small
    merged_groups: int = 0  # that "other" stands for


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    """
    Rates by group.

    Binary: selection_rate (share answered with the positive label), true_positive_rate,
    false_positive_rate, precision, accuracy, each in [0, 1]. Several labels: accuracy, and the
    selection_rate of each label. Regressions: mean_answer, mean_error (answer minus truth) and
    mae, in the target's unit.
    """

    positive: Label | None
    fields: dict[str, ProtectedField]
    least_rows: int = LEAST_ROWS


def fairness(evaluated: EvaluatedRows, protected: Sequence[str]) -> Fairness:
    """
    Compare the groups of protected fields.

    Args:
        evaluated: The test rows.
        protected: Columns of the test table. The model need not take them.

    Raises:
        InvalidInput: There is no such column, or it holds lists.

    Source:
        Differences and ratios between groups: Bird et al., Fairlearn (Microsoft, 2020),
        `MetricFrame`, which these rates equal. Rates: Hardt, Price, Srebro, Equality of
        opportunity in supervised learning (NeurIPS 2016).
    """
    task = evaluated.task
    return Fairness(
        positive=task.labels[1] if task.task == "binary" else None,
        fields={
            name: _compare_groups(evaluated, require_column(evaluated.columns, name))
            for name in protected
        },
    )


def _compare_groups(evaluated: EvaluatedRows, column: EvaluatedColumn) -> ProtectedField:
    codes, names, merged = _largest_groups(*value_groups(column))
    sizes = np.bincount(codes, minlength=len(names))
    if evaluated.task.labels:
        own, drawn = _label_rates(evaluated, codes, len(names))
    else:
        own, drawn = _error_rates(evaluated, codes, len(names))
    small = sizes < LEAST_ROWS
    groups = tuple(
        GroupRates(
            name,
            int(sizes[n]),
            bool(small[n]),
            {
                rate: interval_of(float(own[rate][n]), drawn[rate][:, n])
                for rate in own
                if np.isfinite(own[rate][n])
            },
        )
        for n, name in enumerate(names)
    )
    compared = np.flatnonzero(~small[:-1] if merged else ~small)
    disparities = {}
    for rate, values in own.items():
        with_rate = compared[np.isfinite(values[compared])]
        if len(with_rate) > 1:
            disparities[rate] = _disparity(values, drawn[rate], with_rate, names)
    return ProtectedField(groups=groups, disparities=disparities, merged_groups=merged)


def _largest_groups(codes: Integers, names: list[str]) -> tuple[Integers, list[str], int]:
    """Order groups by size, put the smallest together, and return how many those are."""
    order = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    merged = len(names) - MOST_GROUPS
    if merged <= 1:
        return place[codes], [names[n] for n in order], 0
    kept = [names[n] for n in order[:MOST_GROUPS]]
    return np.minimum(place[codes], MOST_GROUPS), [*kept, f"other ({merged:,} groups)"], merged


Rates = dict[str, Floats]


def _label_rates(evaluated: EvaluatedRows, codes: Integers, groups: int) -> tuple[Rates, Rates]:
    """Return each rate by group, shape (groups,), and its resamples, shape (resamples, groups)."""
    labels = len(evaluated.task.labels)
    truth, chosen = evaluated.task.truth.astype(np.int64), evaluated.answers.choices
    hits = (truth == chosen).astype(np.int64)
    if evaluated.task.task == "binary":
        kind, kinds = truth * 2 + chosen.astype(np.int64), 4
    else:
        kind, kinds = chosen.astype(np.int64) * 2 + hits, labels * 2
    cells, number = codes * kinds + kind, groups * kinds
    own = np.bincount(cells, minlength=number).reshape(1, groups, kinds).astype(np.float64)
    drawn = evaluated.bootstrap.counts(cells, number).reshape(-1, groups, kinds)
    names = [str(label) for label in evaluated.task.labels]
    rates = _binary_rates if kinds == 4 and evaluated.task.task == "binary" else _choice_rates
    return {rate: each[0] for rate, each in rates(own, names).items()}, rates(drawn, names)


def _binary_rates(counts: Floats, labels: list[str]) -> Rates:
    negative, false, missed, found = (counts[..., n] for n in range(4))
    total = counts.sum(axis=-1)
    return {
        "selection_rate": _ratio(false + found, total),
        "true_positive_rate": _ratio(found, found + missed),
        "false_positive_rate": _ratio(false, false + negative),
        "precision": _ratio(found, found + false),
        "accuracy": _ratio(found + negative, total),
    }


def _choice_rates(counts: Floats, labels: list[str]) -> Rates:
    total = counts.sum(axis=-1)
    chosen = counts[..., ::2] + counts[..., 1::2]
    selected = {
        f"selection_rate of {label}": _ratio(chosen[..., n], total)
        for n, label in enumerate(labels)
    }
    return {"accuracy": _ratio(counts[..., 1::2].sum(axis=-1), total), **selected}


def _error_rates(evaluated: EvaluatedRows, codes: Integers, groups: int) -> tuple[Rates, Rates]:
    truth, answers = evaluated.task.truth.astype(np.float64), evaluated.answers.choices
    terms = np.column_stack([answers, answers - truth, np.abs(answers - truth)])
    sizes = np.bincount(codes, minlength=groups)
    own = [np.bincount(codes, term, minlength=groups) for term in terms.T]

    def rates(sums: Floats) -> Rates:
        names = ("mean_answer", "mean_error", "mae")
        return {name: _ratio(sums[..., n], sums[..., 0]) for n, name in enumerate(names, 1)}

    drawn = evaluated.bootstrap.sums(codes, groups, terms)
    return rates(np.stack([sizes, *own], axis=1)), rates(drawn)


def _disparity(own: Floats, drawn: Floats, compared: Integers, names: list[str]) -> Disparity:
    values, resamples = own[compared], drawn[:, compared]
    resamples = resamples[np.isfinite(resamples).all(axis=1)]
    low, high = float(values.min()), float(values.max())
    lowest, highest = resamples.min(axis=1), resamples.max(axis=1)
    has_ratio = high > 0 and low >= 0
    return Disparity(
        difference=interval_of(high - low, highest - lowest),
        ratio=interval_of(low / high, _ratio(lowest, highest)) if has_ratio else None,
        lowest=names[compared[int(values.argmin())]],
        highest=names[compared[int(values.argmax())]],
    )


def _ratio(parts: Floats, wholes: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    nothing = np.full(np.broadcast(parts, wholes).shape, np.nan)
    return np.asarray(np.divide(parts, wholes, out=nothing, where=wholes > 0))


def require_protected(names: Sequence[str] | str) -> tuple[str, ...]:
    """
    Return the names of protected fields.

    Raises:
        InvalidInput: One is not a string.
    """
    found = (names,) if isinstance(names, str) else tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise InvalidInput(f"The protected field {name!r} is not the name of a column.")
    return found
