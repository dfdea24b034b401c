"""
Resamples of test rows: single rows, or whole groups of rows that belong together.

Up to `MOST_ROWS` rows are drawn one by one. Above, like rows are counted as cells, and the counts
are drawn (multinomial): the same distribution, at a cost that does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clewline.evaluation.metrics import (
    LEVEL,
    RESAMPLES,
    Floats,
    Integers,
    Interval,
    Measure,
    default_resamples,
)

MOST_ROWS = 10_000
"""Rows that are drawn one by one."""
MOST_CELLS = 5_000
_LARGEST_DRAW = 20_000_000  # numbers in one array of resamples
_LEAST_RESAMPLES = 100


class RowCells(NamedTuple):
    """Rows in cells of like rows."""

    rows: Integers  # one row that stands for each cell, shape (cells,)
    counts: Floats  # rows of each cell, shape (cells,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """
    How the test rows vary between samples of their size.

    With `groups`, whole groups are drawn: rows of one customer, machine or query are not
    independent, and intervals that treat them so are too narrow.

    Source:
        Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13; groups:
        Field, Welsh, Bootstrapping clustered data (Journal of the Royal Statistical Society B
        69, 2007).
    """

    rows: int
    seed: int = 0
    resamples: int = RESAMPLES
    groups: Integers | None = None  # the group of each row, from 0, shape (rows,)
    cells: RowCells | None = None

    def intervals(self, build: Callable[[Integers | None], Measure]) -> dict[str, Interval]:
        """
        Measure the rows, and how much each metric varies.

        Args:
            build: Returns the measure of some rows; of all for None.

        Returns:
            Every metric that the rows define. If a resample does not define it, the interval
            leaves that resample out.
        """
        whole = build(None)
        values = {n: value for n, value in whole(np.ones(self.rows)).items() if np.isfinite(value)}
        measure, shift = whole, dict.fromkeys(values, 0.0)
        if self.cells is not None and self.groups is None:
            measure = build(self.cells.rows)
            near = measure(self.cells.counts)
            shift = {name: value - near.get(name, value) for name, value in values.items()}
        drawn: dict[str, list[float]] = {name: [] for name in values}
        for weights in self._weights():
            for name, value in measure(weights).items():
                if name in drawn and np.isfinite(value):
                    drawn[name].append(value + shift[name])
        return {name: interval_of(value, np.array(drawn[name])) for name, value in values.items()}

    def counts(self, cells: Integers, number: int) -> Floats:
        """
        Draw how many rows fall into each cell.

        Args:
            cells: The cell of each row, from 0 to `number` - 1, shape (rows,).
            number: Number of cells.

        Returns:
            Shape (resamples, number); fewer resamples than stated if there are many cells.
        """
        if self.groups is None:
            shares = np.bincount(cells, minlength=number) / self.rows
            random = np.random.default_rng(self.seed)
            drawn = random.multinomial(self.rows, shares, self._resamples(number))
            return np.asarray(drawn, dtype=np.float64)
        return self._draw_owners(cells, number, np.ones((self.rows, 1)), self.groups)[..., 0]

    def sums(self, cells: Integers, number: int, terms: Floats) -> Floats:
        """
        Draw the number of rows in each cell and the sums of terms over them.

        Args:
            cells: As for `counts`.
            number: Number of cells.
            terms: Shape (rows, k), finite.

        Returns:
            Shape (resamples, number, 1 + k), the counts first. Above `MOST_ROWS` independent
            rows the mean of each cell is normal, by the central limit theorem.
        """
        terms = np.column_stack([np.ones(self.rows), terms])
        if self.groups is not None or self.rows <= MOST_ROWS:
            owners = np.arange(self.rows) if self.groups is None else self.groups
            return self._draw_owners(cells, number, terms, owners)
        random = np.random.default_rng(self.seed)
        counts = np.bincount(cells, minlength=number)
        drawn = random.multinomial(self.rows, counts / self.rows, self._resamples(number)) * 1.0
        found = np.zeros((*drawn.shape, terms.shape[1]))
        order, ends = np.argsort(cells, kind="stable"), counts.cumsum()
        for cell in np.flatnonzero(counts):
            inside = terms[order[ends[cell] - counts[cell] : ends[cell]], 1:]
            centred = inside - inside.mean(axis=0)
            spread = (centred[:, :, None] * centred[:, None, :]).mean(axis=0)
            values, vectors = np.linalg.eigh(spread)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            noise = random.standard_normal((len(drawn), len(values)))
            many = drawn[:, cell, None]
            found[:, cell, 0] = drawn[:, cell]
            moved = (noise[:, None, :] * root).sum(axis=2) * np.sqrt(many)
            found[:, cell, 1:] = many * inside.mean(axis=0) + moved
        return found

    def means(self, terms: Floats) -> Floats:
        """Draw the means of terms, shape (rows, k), over the rows; shape (resamples, k)."""
        drawn = self.sums(np.zeros(self.rows, dtype=np.int64), 1, terms)[:, 0]
        return drawn[:, 1:] / drawn[:, :1]

    def _draw_owners(self, cells: Integers, number: int, terms: Floats, owners: Integers) -> Floats:
        """Draw owners of rows, and add up the terms of their rows in each cell."""
        pairs, inverse = np.unique(owners * number + cells, return_inverse=True)
        whose, places = np.divmod(pairs, number)
        sums = [np.bincount(inverse, term, minlength=len(pairs)) for term in terms.T]
        random, total = np.random.default_rng(self.seed), int(owners.max()) + 1
        found = np.empty((self._resamples(number * len(sums)), number, len(sums)))
        for each in found:
            drawn = np.bincount(random.integers(0, total, total), minlength=total)[whose]
            for n, part in enumerate(sums):
                each[:, n] = np.bincount(places, part * drawn, minlength=number)
        return found

    def _resamples(self, numbers: int) -> int:
        """Return how many resamples of so many numbers are drawn."""
        return min(self.resamples, max(_LEAST_RESAMPLES, _LARGEST_DRAW // max(numbers, 1)))

    def mean(self, values: Floats) -> Interval:
        """Return the mean of values, shape (rows,), with its interval."""
        return interval_of(float(values.mean()), self.means(values[:, None])[:, 0])

    def _weights(self) -> Iterator[Floats]:
        random = np.random.default_rng(self.seed)
        if self.groups is not None:
            total = int(self.groups.max()) + 1
            for _ in range(self.resamples):
                drawn = np.bincount(random.integers(0, total, total), minlength=total)
                yield drawn[self.groups].astype(np.float64)
        elif self.cells is not None:
            shares = self.cells.counts / self.cells.counts.sum()
            for _ in range(self.resamples):
                yield random.multinomial(self.rows, shares).astype(np.float64)
        else:
            for _ in range(self.resamples):
                drawn = np.bincount(random.integers(0, self.rows, self.rows), minlength=self.rows)
                yield drawn.astype(np.float64)


def plan_bootstrap(
    rows: int,
    *,
    seed: int = 0,
    resamples: int | None = None,
    groups: Integers | None = None,
    cells: Callable[[], RowCells] | None = None,
) -> Bootstrap:
    """
    Choose how rows are drawn: by groups if there are any, as cells if the rows are many.

    Args:
        rows: Number of rows.
        seed: Seed of the draws; equal seeds give equal intervals.
        resamples: By default 1,000; fewer if groups of many rows are drawn.
        groups: The group of each row, shape (rows,).
        cells: Returns cells of like rows.
    """
    if groups is not None:
        return Bootstrap(
            rows=rows, seed=seed, resamples=resamples or default_resamples(rows), groups=groups
        )
    found = cells() if cells is not None and rows > MOST_ROWS else None
    return Bootstrap(rows=rows, seed=seed, resamples=resamples or RESAMPLES, cells=found)


def interval_of(value: float, drawn: Floats) -> Interval:
    """Return a value with the 95 % percentile interval of its resamples; leave NaN out."""
    known = drawn[np.isfinite(drawn)]
    if not known.size:
        return Interval(value, value, value)
    return Interval(value, *np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist())


def cells_of(kinds: Integers, order_by: Floats, singles: Integers) -> RowCells:
    """
    Put rows of one kind into cells of neighbours, each of which a row in its middle stands for.

    Args:
        kinds: What the rows of a cell have in common, such as truth and answer, shape (n,).
        order_by: What the rows of a cell should have nearly in common, shape (n,).
        singles: Rows that are cells of their own: the most extreme ones.
    """
    _, kinds = np.unique(kinds, return_inverse=True)
    order = np.lexsort((order_by, kinds))
    alone = np.zeros(len(kinds), dtype=np.bool_)
    alone[singles] = True
    order = order[~alone[order]]
    sizes = np.bincount(kinds[order])
    sizes = sizes[sizes > 0]
    bins = np.minimum(sizes, max(1, MOST_CELLS // max(len(sizes), 1)))
    firsts = sizes.cumsum() - sizes
    # The ends of the cells: each kind is cut into its number of nearly equal parts.
    ends = np.concatenate(
        [
            first + (np.arange(1, parts + 1) * size) // parts
            for first, size, parts in zip(firsts, sizes, bins, strict=True)
        ]
    )
    starts = np.append(0, ends[:-1])
    rows = np.append(order[(starts + ends) // 2], singles)
    counts = np.append((ends - starts).astype(np.float64), np.ones(len(singles)))
    return RowCells(rows, counts)
