"""
How the answer depends on one field, over its whole range.

*Partial dependence* is the mean answer if every row had the value; it asks about rows that may
not exist. *Accumulated local effects* (ALE) add up how the answer changes between neighbouring
values of the rows that lie there, so that fields that go with this one do not mix in.

Source:
    Partial dependence: Friedman, Greedy function approximation (Annals of Statistics 29, 2001).
    ALE, also of levels in an order of similarity: Apley, Zhu, Visualizing the effects of
    predictor variables in black box supervised learning models (JRSS B 82, 2020).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.asked_model import AskedModel
from clewline.evaluation.columns import EvaluatedColumn, EvaluatedColumns
from clewline.evaluation.field_groups import level_codes
from clewline.evaluation.metrics import LEVEL, Floats, Integers, Interval
from clewline.signature import timestamps
from clewline.signature.infer import Label

BINS = 20
BIN_ROWS = 200
"""Rows of a bin of ALE; fewer where even `LEAST_BINS` bins would not have as many."""

LEAST_BINS = 5
POINTS = 20
"""Quantiles of a partial dependence, and levels of a field, the most frequent ones."""

RESAMPLES = 200


class EffectPoint(msgspec.Struct, frozen=True):
    """A value of the field and what it does to the answer."""

    value: Any  # number, date-time as text, level, or null
    rows: int  # with this value; of ALE over a number those between the previous value and this
    effect: Interval  # bootstrap over rows


class FieldEffect(msgspec.Struct, frozen=True, kw_only=True):
    """One curve."""

    field: str
    kind: Literal["ale", "partial dependence"]
    label: Label | None = None  # whose probability the answer is; None: the value
    is_numeric: bool  # whether points lie on a scale; levels stand in an order of similarity
    points: list[EffectPoint]
    """ALE: difference from the mean effect. Partial dependence: mean answer."""
    rows: int  # that the curve was made from
    nulls: int  # rows without a value, which are left out


class _Steps(NamedTuple):
    """Differences of the answer between neighbouring values."""

    rows: Integers  # (m,): which row each belongs to, as a place in the sample
    step: Integers  # (m,): between the values `step` and `step` + 1
    difference: Floats  # (m, k)


def accumulated_local_effects(
    asked: AskedModel,
    columns: EvaluatedColumns,
    field: str,
    rows: Integers,
    labels: list[tuple[int, Label | None]],
    *,
    seed: int = 0,
) -> list[FieldEffect]:
    """
    Measure the accumulated local effects of a field.

    Numbers are cut at quantiles that are values of rows; with few distinct values, at each.

    Args:
        asked: The model and its rows.
        columns: All columns; those besides the field say which levels are similar.
        field: One of the columns.
        rows: The rows that are used.
        labels: For each curve the place of its score, and the label.
        seed: Of the bootstrap.

    Returns:
        A curve for each label; none if the field has fewer than two values.
    """
    column = columns[field]
    known = rows[~column.is_null[rows]]
    if column.is_numeric:
        edges, sources = _edges(column.values[known], known)
        if len(edges) < 2:
            return []
        values = column.values[known]
        bins = np.clip(np.searchsorted(edges, values, side="left"), 1, len(edges) - 1) - 1
        places = np.arange(len(known))
        counts = np.concatenate([[0], np.bincount(bins, minlength=len(edges) - 1)])
        shown = [_shown(column, edge) for edge in edges.tolist()]
        steps = _steps(asked, field, known, places, bins, sources)
    else:
        codes = level_codes(column)[known]
        known, codes = known[codes < POINTS], codes[codes < POINTS]
        present, codes = np.unique(codes, return_inverse=True)
        if len(present) < 2:
            return []
        order = _similarity_order(codes, known, field, columns)
        level = np.argsort(order)[codes]  # the place of each row's level in that order
        sources = np.array([known[np.argmax(level == at)] for at in range(len(order))])
        up, down = np.flatnonzero(level < len(order) - 1), np.flatnonzero(level > 0)
        places, step = np.concatenate([up, down]), np.concatenate([level[up], level[down] - 1])
        counts = np.bincount(level, minlength=len(order))
        shown = [_shown(column, value) for value in column.cells(sources)]
        steps = _steps(asked, field, known, places, step, sources)
    weights = _weights(len(known), seed)
    found = []
    for place, label in labels:
        curves = _accumulate(steps, place, weights, len(shown) - 1)
        if column.is_numeric:
            shares = _count(weights[:, steps.rows], steps.step, len(shown) - 1)
            middle = (shares * (curves[:, 1:] + curves[:, :-1]) / 2).sum(axis=1)
        else:
            shares = _count(weights, level, len(shown))
            middle = (shares * curves).sum(axis=1)
        curves -= (middle / shares.sum(axis=1))[:, None]
        found.append(
            FieldEffect(
                field=field,
                kind="ale",
                label=label,
                is_numeric=column.is_numeric,
                points=_points(shown, counts, curves),
                rows=len(known),
                nulls=len(rows) - int((~column.is_null[rows]).sum()),
            )
        )
    return found


def partial_dependence(
    asked: AskedModel,
    column: EvaluatedColumn,
    rows: Integers,
    sources: Integers,
    labels: list[tuple[int, Label | None]],
    *,
    seed: int = 0,
) -> list[FieldEffect]:
    """
    Measure the mean answer for values of a field, null among them.

    Args:
        asked: The model and its rows.
        column: The field.
        rows: The rows whose answers are averaged.
        sources: The rows that values are taken from.
        labels: As of `accumulated_local_effects`.
        seed: Of the bootstrap.
    """
    missing = column.is_null[sources]
    known = sources[~missing]
    values = column.values[known]
    if column.is_numeric:
        distinct, first, counts = np.unique(values, return_index=True, return_counts=True)
        if len(distinct) > POINTS:
            # Quantiles of the rows, and of the distinct values where most rows have one value.
            shares = np.linspace(0, 1, POINTS)
            quantiles = np.quantile(values, shares, method="lower")
            spread = np.quantile(distinct, shares[::4], method="lower")
            chosen = np.searchsorted(distinct, np.unique([*quantiles, *spread]))
            first, counts = first[chosen], np.add.reduceat(counts, chosen)
    else:
        codes = level_codes(column)[known]
        distinct, first, counts = np.unique(codes, return_index=True, return_counts=True)
        first, counts = first[distinct < POINTS], counts[distinct < POINTS]
    from_row, counts = known[first], counts.tolist()
    if missing.any():
        from_row = np.append(from_row, sources[np.argmax(missing)])
        counts.append(int(missing.sum()))
    if len(from_row) < 2:
        return []
    tiled, replaced = np.tile(rows, len(from_row)), np.repeat(from_row, len(rows))
    scores = asked.scores(tiled, [column.name], replaced).reshape(len(from_row), len(rows), -1)
    weights = _weights(len(rows), seed)
    shown = [_shown(column, value) for value in column.cells(from_row)]
    return [
        FieldEffect(
            field=column.name,
            kind="partial dependence",
            label=label,
            is_numeric=column.is_numeric,
            points=_points(shown, counts, _mean(weights, scores[:, :, place])),
            rows=len(rows),
            nulls=0,
        )
        for place, label in labels
    ]


def _edges(values: Floats, rows: Integers) -> tuple[Floats, Integers]:
    """Return the ends of the bins, ascending, and a row that has each."""
    distinct, first = np.unique(values, return_index=True)
    bins = min(BINS, max(LEAST_BINS, len(values) // BIN_ROWS))
    if len(distinct) > bins + 1:
        quantiles = np.quantile(values, np.linspace(0, 1, bins + 1), method="lower")
        chosen = np.searchsorted(distinct, np.unique(quantiles))
        distinct, first = distinct[chosen], first[chosen]
    return distinct, rows[first]


def _steps(
    asked: AskedModel,
    field: str,
    known: Integers,
    places: Integers,
    step: Integers,
    sources: Integers,
) -> _Steps:
    """Ask about rows with the value before and after their step."""
    after = asked.scores(known[places], [field], sources[step + 1])
    before = asked.scores(known[places], [field], sources[step])
    return _Steps(places, step, after - before)


def _accumulate(steps: _Steps, place: int, weights: Floats, count: int) -> Floats:
    """Add up the mean difference of each step, (resamples, count + 1)."""
    drawn = weights[:, steps.rows]
    sums = _count(drawn * steps.difference[:, place], steps.step, count)
    counts = _count(drawn, steps.step, count)
    mean = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    # A resample without rows of a step takes the difference of the sample.
    mean = np.where(counts > 0, mean, mean[:1])
    return np.concatenate([np.zeros((len(mean), 1)), mean.cumsum(axis=1)], axis=1)


def _count(weights: Floats, bins: Integers, count: int) -> Floats:
    """Add up the weights (resamples, m) of each bin, (resamples, count)."""
    order = np.argsort(bins, kind="stable")
    found = np.zeros((len(weights), count))
    present, starts = np.unique(bins[order], return_index=True)
    found[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return found


def _weights(rows: int, seed: int) -> Floats:
    """Return how often each row counts: once in the sample itself, then in resamples."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    return np.concatenate([np.ones((1, rows)), drawn])


def _mean(weights: Floats, scores: Floats) -> Floats:
    """Average scores (points, n) in each resample, (resamples, points)."""
    found = [(weights * each).sum(axis=1) / weights.sum(axis=1) for each in scores]
    return np.stack(found, axis=1)


def _points(shown: list[Any], counts: Any, curves: Floats) -> list[EffectPoint]:
    """Return points with the interval of their resamples; the first curve is the sample's own."""
    ends = np.quantile(curves[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T.tolist()
    return [
        EffectPoint(value, int(count), Interval(effect, low, high))
        for value, count, effect, (low, high) in zip(
            shown, counts, curves[0].tolist(), ends, strict=True
        )
    ]


def _similarity_order(
    codes: Integers, rows: Integers, field: str, columns: EvaluatedColumns
) -> NDArray[np.intp]:
    """
    Order levels so that neighbours have similar rows: the first axis of a scaling of distances.

    The distance of two levels is the sum over all other fields of the largest difference of
    their distribution functions, or of levels the total variation distance.
    """
    count = int(codes.max()) + 1
    sizes = np.bincount(codes, minlength=count)[:, None]
    distance = np.zeros((count, count))
    for name, other in columns.items():
        if name == field:
            continue
        if other.is_numeric:
            values = np.nan_to_num(other.values[rows], nan=-np.inf)
            cuts = np.unique(np.quantile(values, np.linspace(0, 1, 21)[1:-1], method="lower"))
            below = (values[:, None] <= cuts).astype(np.float64)
            shares = np.stack([below[codes == at].mean(axis=0) for at in range(count)])
            apart = np.abs(shares[:, None] - shares).max(axis=2, initial=0)
        else:
            theirs = np.minimum(level_codes(other)[rows], POINTS)
            shares = np.zeros((count, POINTS + 1))
            np.add.at(shares, (codes, theirs), 1)
            shares /= sizes
            apart = np.abs(shares[:, None] - shares).sum(axis=2) / 2
        distance += apart
    centre = np.eye(count) - 1 / count
    scaled = -centre @ distance**2 @ centre / 2
    axis = np.linalg.eigh(scaled)[1][:, -1]
    if axis[0] > axis[-1]:  # an axis has no direction; the most frequent level comes first
        axis = -axis
    return np.argsort(axis, kind="stable")


def _shown(column: EvaluatedColumn, value: Any) -> Any:
    """Return a value as a person reads it."""
    if isinstance(value, float):
        if np.isnan(value):
            return None
        return timestamps.format_microseconds(value) if column.is_datetime else value
    return value
