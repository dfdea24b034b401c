"""
Shapley values of one row, with the field as the player: how much each field moved the answer.

Ensembles of trees are attributed exactly. A leaf's contribution is a product over the fields, so
its Shapley values are integrals of polynomials over [0, 1], which Gauss-Legendre quadrature
gives exactly: K points for up to 2 K fields on a path. Any other model is asked, with fields
replaced by those of background rows, and the values are estimates with standard errors.

Source:
    Shapley values as an integral: Owen, Multilinear extensions of games (1972). Quadrature over
    the paths of trees: Quadrature-TreeSHAP, arXiv 2605.04497. The game of trees, in which
    unknown fields follow the shares of training rows: Lundberg et al., arXiv 1905.04610.
    Sampling: Štrumbelj, Kononenko, Explaining prediction models and individual predictions with
    feature contributions (2014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clewline.explain.leaf_boxes import LeafBoxes
from clewline.model.runtime.outputs import take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

CHUNK = 4096
"""Leaves that are computed at once: their arrays stay in the processor's cache."""

ROWS_PER_CALL = 1000


@dataclass(frozen=True, slots=True)
class ShapleyValues:
    """`base` + the sum of `values` is `total`, what the model answers for the row."""

    base: float  # the expected answer, if no field is known
    values: NDArray[np.float64]  # (players,)
    total: float
    errors: NDArray[np.float64] | None = None  # standard errors (players,); None if exact
    model_rows: int = 0  # that the model answered


class TreeShapleyValues:
    """
    Computes the Shapley values of rows of an ensemble of trees, exactly.

    Leaves of value 0 are left out, and the others sorted by the number of fields on their path,
    as fewer fields need fewer points, and by these fields, so that most leaves of a chunk have
    the same ones and others need not be computed.

    Args:
        boxes: Of the ensemble; their players are the players.
        target: The sum of the ensemble that is explained.
    """

    def __init__(self, boxes: LeafBoxes, target: int = 0) -> None:
        counts = boxes.value != 0
        if boxes.trees.ensemble.targets > 1:
            counts &= boxes.target == target
        leaves = np.flatnonzero(counts)
        on_path = boxes.share[:, leaves] != 1
        points = np.maximum(1, -(-on_path.sum(axis=0) // 2))
        # The fields that divide the leaves most evenly come first.
        dividing = np.argsort(np.abs(on_path.mean(axis=1) - 0.5), kind="stable")
        order = np.lexsort([*on_path[dividing[::-1]], points])
        taken = boxes.take(leaves[order])
        self._base = float(taken.share.prod(axis=0) @ taken.value)
        # The chunks have the shares.
        self._boxes = replace(taken, share=np.broadcast_to(1.0, taken.share.shape))
        on_path, points = on_path[:, order], points[order]
        bounds = [0, *(np.flatnonzero(np.diff(points)) + 1).tolist(), len(points)]
        self._chunks: list[_Chunk] = []
        for start, end in pairwise(bounds):
            for at in range(start, end, CHUNK):
                chunk = slice(at, min(at + CHUNK, end))
                players = np.flatnonzero(on_path[:, chunk].any(axis=1))
                share = np.ascontiguousarray(taken.share[players, chunk])
                self._chunks.append(_Chunk(chunk, players, share, int(points[at])))

    def of(self, row: Columns) -> ShapleyValues:
        """
        Compute the values of one checked row.

        Returns:
            Values on the scale of the trees' sums: log-odds for a boosted classifier, a
            probability times the number of trees for a forest.

        Raises:
            InvalidInput: The model refuses the row.
        """
        boxes = self._boxes
        inside, total = boxes.contains(row), 0.0
        values = np.zeros(len(boxes.players))
        for chunk, players, w, points in self._chunks:
            s, v = inside[players, chunk], boxes.value[chunk]
            total += float(s.all(axis=0) @ v)
            difference = s - w
            factor = np.empty_like(difference)
            for point, weight in _quadrature(points):
                np.multiply(difference, point, out=factor)
                factor += w
                product = factor.prod(axis=0)
                product *= v
                np.divide(difference, factor, out=factor)
                values[players] += weight * (factor @ product)
        return ShapleyValues(self._base, values, total)


class _Chunk(NamedTuple):
    """Leaves that are computed at once."""

    leaves: slice
    players: NDArray[np.intp]  # on the path of any of them
    share: NDArray[np.float64]  # (players, leaves)
    points: int  # of the quadrature


@cache
def _quadrature(points: int) -> list[tuple[float, float]]:
    """Return points and weights that integrate polynomials of degree 2 · points - 1 over [0, 1]."""
    found, weights = np.polynomial.legendre.leggauss(points)
    return list(zip(((found + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def tree_shapley_values(boxes: LeafBoxes, row: Columns, target: int = 0) -> ShapleyValues:
    """Compute the Shapley values of a single row; as `TreeShapleyValues`."""
    return TreeShapleyValues(boxes, target).of(row)


def sampled_shapley_values(
    predict: Callable[[Columns], NDArray[np.float64]],
    row: Columns,
    background: Columns,
    signature: Signature,
    *,
    budget: int,
    seed: int,
) -> ShapleyValues:
    """
    Estimate the Shapley values of a row of any model.

    Fields are taken over from the row one after the other, in a random order, into a background
    row; what a field changes is one sample of its value. Each order is used a second time in
    reverse, for less variance.

    Args:
        predict: Answers n rows with n numbers.
        row: One checked row.
        background: At least one checked row; unknown fields are taken from these.
        signature: Its fields are the players, in its order.
        budget: Maximum number of rows that the model answers; at least two orders are used, in
            both directions, because errors need two samples.
        seed: Of the orders, and of the order of the background rows.
    """
    players = len(signature.fields)
    pairs = max(2, budget // (2 * (players + 1)))
    random = np.random.default_rng(seed)
    backgrounds = np.resize(random.permutation(len(background)), pairs)
    samples = np.empty((pairs, players))  # of a pair the mean of both directions
    base = total = 0.0
    chunk = max(1, ROWS_PER_CALL // (2 * (players + 1)))
    for at in range(0, pairs, chunk):
        behind = backgrounds[at : at + chunk]
        ranks = np.argsort(random.random((len(behind), players)), axis=1).argsort(axis=1)
        both = np.stack([ranks, players - 1 - ranks], axis=1)  # (pairs, 2, players)
        steps = np.arange(players + 1)[:, None]
        known = both[:, :, None, :] < steps  # (pairs, 2, players + 1, players)
        rows = _mixed_rows(row, background, signature, known, behind)
        answers = predict(rows).reshape(len(behind), 2, players + 1)
        moved = np.take_along_axis(np.diff(answers, axis=2), both, axis=2)
        samples[at : at + len(behind)] = moved.mean(axis=1)
        base += float(answers[:, 0, 0].sum())
        total = float(answers[0, 0, -1])
    errors = samples.std(axis=0, ddof=1) / np.sqrt(pairs)
    rows_asked = pairs * 2 * (players + 1)
    return ShapleyValues(base / pairs, samples.mean(axis=0), total, errors, rows_asked)


def _mixed_rows(
    row: Columns,
    background: Columns,
    signature: Signature,
    known: NDArray[np.bool_],
    behind: NDArray[np.intp],
) -> Columns:
    """Return the rows in which the known fields are the row's, and others a background row's."""
    flat = known.reshape(-1, known.shape[-1])
    mixed = take_rows(background, np.repeat(behind, len(flat) // len(behind)))
    places = {field.name: place for place, field in enumerate(signature.fields)}
    for own, found, fields in (
        (row.numbers, mixed.numbers, signature.numeric),
        (row.texts, mixed.texts, signature.textual),
    ):
        for column, field in enumerate(fields):
            found[flat[:, places[field.name]], column] = own[0, column]
    tensors = {}
    for field in signature.tensors:
        tensors[field.name] = tensor = mixed.tensors[field.name].copy()
        tensor[flat[:, places[field.name]]] = row.tensors[field.name][0]
    return Columns(mixed.numbers, mixed.texts, tensors)
