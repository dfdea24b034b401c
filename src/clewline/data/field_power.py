"""How well a single field predicts the target: by group means of rows that were left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.data.prepared_table import Codes

FOLDS = 5
BLOCKS = 20
_RESAMPLES = 100
_TAILS = (0.025, 0.975)

Floats = NDArray[np.float64]


class FieldPower(msgspec.Struct, frozen=True):
    """
    How well a field alone predicts the target.

    `roc_auc` is the mean over the labels, each against the rest, weighted by their rows: 0.5
    for nothing, 1 for everything. `rank_r2` is the share of the variance of the target's
    ranks: 0 for nothing, 1 for everything.
    """

    metric: Literal["roc_auc", "rank_r2"]
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CodedTarget:
    """The target of the rows, and the fold that each belongs to."""

    labels: Codes | None  # label indices, shape (n,); None for a quantity
    count: int  # of labels
    ranks: Floats  # of a quantity, scaled to [0, 1], shape (n,)
    blocks: Codes  # 0 to 19, shape (n,)


def code_target(labels: Codes | None, quantities: Floats | None, *, seed: int = 0) -> CodedTarget:
    """
    Prepare a target for `measure_power`.

    Args:
        labels: Label indices, shape (n,).
        quantities: Numbers without NaN, shape (n,), if there are no labels.
        seed: Seed of the folds.
    """
    from scipy.stats import rankdata

    rows = len(labels) if labels is not None else len(quantities if quantities is not None else ())
    blocks = np.random.default_rng(seed).permutation(rows) % BLOCKS
    if labels is not None:
        return CodedTarget(labels, int(labels.max(initial=0)) + 1, np.zeros(0), blocks)
    ranks = rankdata(quantities) / max(rows, 1)
    return CodedTarget(None, 0, np.asarray(ranks), blocks)


def measure_power(
    codes: Codes, count: int, target: CodedTarget, *, interval: bool = True
) -> FieldPower:
    """
    Measure how well groups of rows predict the target.

    A row is scored by the mean of its group in the four fifths of the rows that it is not in,
    so that a field of chance gets the score of chance, however many levels it has.

    Args:
        codes: Group of each row, shape (n,), from 0 to `count` - 1.
        count: Number of groups.
        target: Of the same rows.
        interval: Resample for the interval; otherwise it is the value alone.

    Source:
        Micci-Barreca, A preprocessing scheme for high-cardinality categorical attributes
        (SIGKDD Explorations 3, 2001), cross-fitted.
    """
    if target.labels is None:
        return _rank_power(codes, count, target, interval=interval)
    cells = (target.blocks % FOLDS * count + codes) * target.count + target.labels
    table = np.bincount(cells, minlength=FOLDS * count * target.count).astype(np.float64)
    table = table.reshape(FOLDS, count, target.count)
    others = table.sum(axis=0) - table
    prior = table.sum(axis=(0, 1)) / max(table.sum(), 1.0)
    rates = (others + prior) / (others.sum(axis=2, keepdims=True) + 1.0)
    draws = table.reshape(1, -1)
    if interval and table.sum():
        random = np.random.default_rng(0)
        shares = draws[0] / draws.sum()
        more = random.multinomial(int(draws.sum()), shares, size=_RESAMPLES)
        draws = np.concatenate([draws, more.astype(np.float64)])
    cubes = draws.reshape(len(draws), FOLDS * count, target.count)
    values = _weighted_auc(rates.reshape(FOLDS * count, target.count), cubes)
    low, high = np.quantile(values[1:], _TAILS).tolist() if len(values) > 1 else [values[0]] * 2
    return FieldPower("roc_auc", float(values[0]), low, high)


def _weighted_auc(rates: Floats, draws: Floats) -> Floats:
    """Return the AUC of each draw, shape (draws,): draws of shape (draws, cells, labels)."""
    sums, weights = np.zeros(len(draws)), np.zeros(len(draws))
    places = [1] if rates.shape[1] == 2 else range(rates.shape[1])
    for place in places:
        scores = np.round(rates[:, place], 12)
        order = np.argsort(-scores, kind="stable")
        first = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
        hits = np.add.reduceat(draws[:, order, place], first, axis=1)
        misses = np.add.reduceat(draws.sum(axis=2)[:, order], first, axis=1) - hits
        found, missed = hits.sum(axis=1), misses.sum(axis=1)
        above = hits.cumsum(axis=1) - hits / 2
        pairs = found * missed
        area = np.divide(
            (above * misses).sum(axis=1), pairs, out=np.full(len(draws), 0.5), where=pairs > 0
        )
        sums += area * found
        weights += found
    return np.asarray(np.divide(sums, weights, out=np.full(len(draws), 0.5), where=weights > 0))


def _rank_power(codes: Codes, count: int, target: CodedTarget, *, interval: bool) -> FieldPower:
    cells, ranks = target.blocks * count + codes, target.ranks
    size = BLOCKS * count
    rows = np.bincount(cells, minlength=size).astype(np.float64).reshape(BLOCKS, count)
    sums = np.bincount(cells, ranks, minlength=size).reshape(BLOCKS, count)
    squares = np.bincount(cells, ranks**2, minlength=size).reshape(BLOCKS, count)
    fold = np.arange(BLOCKS) % FOLDS
    mean = float(ranks.mean()) if len(ranks) else 0.5
    errors = np.zeros(BLOCKS)
    for number in range(FOLDS):
        here = fold == number
        known, known_sums = rows[~here].sum(axis=0), sums[~here].sum(axis=0)
        guess = (known_sums + mean) / (known + 1.0)
        errors[here] = (squares[here] - 2 * guess * sums[here] + guess**2 * rows[here]).sum(axis=1)
    totals = (squares - 2 * mean * sums + mean**2 * rows).sum(axis=1)
    if totals.sum() <= 0:
        return FieldPower("rank_r2", 0.0, 0.0, 0.0)
    value = float(max(1 - errors.sum() / totals.sum(), -1.0))
    if not interval:
        return FieldPower("rank_r2", value, value, value)
    drawn = np.random.default_rng(0).integers(0, BLOCKS, (_RESAMPLES, BLOCKS))
    wholes = totals[drawn].sum(axis=1)
    found = 1 - np.divide(
        errors[drawn].sum(axis=1), wholes, out=np.ones(len(drawn)), where=wholes > 0
    )
    low, high = np.quantile(found, _TAILS).tolist()
    return FieldPower("rank_r2", value, low, high)
