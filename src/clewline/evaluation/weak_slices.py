"""
Weak slices: conditions on up to three fields under which a model does clearly worse.

Half of the rows are searched, the other half confirms. Every combination of conditions is tried,
but counted on tables of codes instead of rows, so that the work is bounded: 20 fields, three at a
time, are 1,140 counts of at most 200,000 rows. The few candidates are then tested on rows that
the search has not seen, with Holm's correction for their number.

Source:
    Chung et al., Slice Finder (ICDE 2019); Sagadeeva, Boehm, SliceLine (SIGMOD 2021).
    Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of
    Statistics 6, 1979).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from clewline.evaluation.answers import EvaluatedRows
from clewline.evaluation.columns import EvaluatedColumn
from clewline.evaluation.conditions import Mask
from clewline.evaluation.metrics import Floats, Integers, Interval

MOST_SEARCHED_ROWS = 200_000
MOST_FIELDS = 20
"""Fields that are combined; those that separate the losses best on their own."""
MOST_LEVELS = 8
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
LEAST_ROWS, LEAST_SHARE = 30, 0.005
"""Rows of a slice in the half that is searched."""
LEAST_RATIO = 1.2
"""A weak slice loses at least so many times as much as the other rows."""
LEAST_STEP = 1.1
"""Each of its conditions makes a slice lose at least so many times as much."""
LARGEST_SHARE = 0.5
"""A slice is at most this part of the rows: with more, the other rows are the special ones."""
MOST_CANDIDATES = 10
LEAST_NEW_SHARE = 0.25
"""Part of the rows of a candidate that belong to none of the better candidates."""
LEAST_NEW = 4.0
"""Standard errors by which a candidate is worse without the rows of the better candidates."""
LARGEST_P = 0.05
RESAMPLES = 400
EXACT_ROWS = 1000
_KEPT, _KEPT_OF_TABLE = 2000, 3
_FEW_ROWS = 10_000
_LENGTH_COST = 1.0  # standard errors by which another condition must be better


class WeakSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A slice, measured on the rows that the search has not seen."""

    condition: str  # as `cl.evaluate(slices=…)` takes it
    fields: tuple[str, ...]
    rows: int  # of the confirming half
    share: float  # of the confirming half
    loss: Interval
    other_loss: float  # of the rows outside the slice
    p_value: float  # after Holm's correction


class WeakSlices(msgspec.Struct, frozen=True, kw_only=True):
    """What a search for weak slices did and found."""

    loss: Literal["error_rate", "absolute_error"]
    slices: tuple[WeakSlice, ...]  # the clearest first
    tried: int  # combinations of conditions with enough rows
    candidates: int  # that were tested on the confirming half
    searched_rows: int
    confirming_rows: int
    combined_fields: tuple[str, ...]
    least_rows: int
    largest_p: float = LARGEST_P


class CodedCondition(NamedTuple):
    """One condition on one field."""

    text: str
    codes: tuple[int, ...]  # that meet it


@dataclass(frozen=True, slots=True)
class _CodedField:
    name: str
    codes: Integers  # of all rows
    size: int
    conditions: tuple[CodedCondition, ...]

    @property
    def members(self) -> Floats:
        """Which code meets which condition, shape (conditions + 1, codes); all meet the last."""
        found = np.zeros((len(self.conditions) + 1, self.size))
        found[-1] = 1.0
        for place, condition in enumerate(self.conditions):
            found[place, list(condition.codes)] = 1.0
        return found


class _Candidate(NamedTuple):
    score: float
    fields: tuple[int, ...]
    conditions: tuple[int, ...]


def find_weak_slices(evaluated: EvaluatedRows, ignored: Sequence[str] = ()) -> WeakSlices:
    """
    Find slices on which the model loses clearly more than on the other rows.

    Args:
        evaluated: The test rows.
        ignored: Columns that name or date rows, such as an entity.
    """
    losses, half = evaluated.task.losses(evaluated.answers), evaluated.halves()
    search = np.flatnonzero(half == 0)
    confirm = np.flatnonzero(half == 1)
    if len(search) > MOST_SEARCHED_ROWS:
        random = np.random.default_rng(evaluated.bootstrap.seed)
        search = np.sort(random.choice(search, MOST_SEARCHED_ROWS, replace=False))
    least = max(LEAST_ROWS, int(LEAST_SHARE * len(search)))
    columns = [each for name, each in evaluated.columns.items() if name not in ignored]
    fields = [field for each in columns for field in _code_field(each, search, least)]
    tables = _Tables(fields, search, losses, least)
    singles = [(best, n) for n in range(len(fields)) if (best := tables.search((n,))) is not None]
    chosen = sorted(
        n for _, n in sorted(singles, key=lambda each: (-each[0], each[1]))[:MOST_FIELDS]
    )
    for count in (2, 3):
        for some in combinations(chosen, count):
            tables.search(some)
    candidates = _distinct(tables, fields, search)
    found = _confirm(evaluated, losses, fields, candidates, confirm)
    return WeakSlices(
        loss="error_rate" if evaluated.task.labels else "absolute_error",
        slices=found,
        tried=tables.tried,
        candidates=len(candidates),
        searched_rows=len(search),
        confirming_rows=len(confirm),
        combined_fields=tuple(fields[n].name for n in chosen),
        least_rows=least,
    )


def _code_field(column: EvaluatedColumn, search: Integers, least: int) -> Iterator[_CodedField]:
    """Code a column; nothing if no condition on it has enough rows."""
    name = column.name if column.name.isidentifier() else f"`{column.name}`"
    conditions: list[CodedCondition] = []
    seen = column.values[search]
    if column.is_numeric:
        known = seen[~np.isnan(seen)]
        if not known.size:
            return
        edges = np.quantile(known, QUANTILES, method="lower")
        if not column.is_datetime:
            edges = np.array([float(f"{edge:.4g}") for edge in edges])
        edges = np.unique(edges)
        codes = np.searchsorted(edges, column.values).astype(np.int64)
        null = len(edges) + 1
        codes[column.is_null] = null
        for place, edge in enumerate(edges.tolist()):
            number = repr(column.format_number(edge)) if column.is_datetime else f"{edge:.15g}"
            conditions.append(CodedCondition(f"{name} <= {number}", tuple(range(place + 1))))
            above = tuple(range(place + 1, len(edges) + 1))
            conditions.append(CodedCondition(f"{name} > {number}", above))
    else:
        levels = column.levels or ()
        counts = np.bincount(seen[seen >= 0], minlength=len(levels))
        used = [n for n in np.argsort(-counts, kind="stable")[:MOST_LEVELS] if counts[n] >= least]
        place_of = np.zeros(len(levels) + 1, dtype=np.int64)  # 0: any other level
        place_of[used], null = np.arange(1, len(used) + 1), len(used) + 1
        place_of[-1] = null
        codes = place_of[column.values]
        for code, level in enumerate(used, 1):
            conditions.append(CodedCondition(f"{name} == {levels[level]!r}", (code,)))
    conditions.append(CodedCondition(f"{name} is None", (null,)))
    sizes = np.bincount(codes[search], minlength=null + 1)
    enough = [each for each in conditions if least <= sizes[list(each.codes)].sum() < len(search)]
    if enough:
        yield _CodedField(column.name, codes, null + 1, tuple(enough))


class _Tables:
    """Counts rows and losses by the codes of fields, and keeps the best slices."""

    def __init__(
        self, fields: list[_CodedField], search: Integers, losses: Floats, least: int
    ) -> None:
        self.fields, self.least, self.tried = fields, least, 0
        self.codes = [field.codes[search] for field in fields]
        self.members = [field.members for field in fields]
        self.losses = losses[search]
        self.rows, self.total = len(search), float(self.losses.sum())
        self.squares = float((self.losses**2).sum())
        self.is_binary = bool(np.isin(self.losses, (0.0, 1.0)).all())
        self.kept: list[_Candidate] = []

    def search(self, some: tuple[int, ...]) -> float | None:
        """Try all combinations of conditions on some fields; return the best score, if any."""
        tables = self._sums(some)
        counts, sums, squares = (table[(slice(None, -1),) * len(some)] for table in tables)
        enough = (counts >= self.least) & (counts <= LARGEST_SHARE * self.rows)
        self.tried += int(enough.sum())
        scores = self._scores(counts, sums, squares, enough) - _LENGTH_COST * (len(some) - 1)
        if len(some) > 1:
            for axis in range(len(some)):
                # The same slice without its condition on this field.
                wider = [slice(None, -1)] * len(some)
                wider[axis] = slice(-1, None)
                rows, lost = tables[0][tuple(wider)], tables[1][tuple(wider)]
                needed = LEAST_STEP * lost / np.maximum(rows, 1.0)
                scores = np.where(sums >= needed * counts, scores, -np.inf)
        flat = scores.reshape(-1)
        best = np.argsort(-flat, kind="stable")[:_KEPT_OF_TABLE]
        for place in best[flat[best] > 0]:
            at = tuple(int(n) for n in np.unravel_index(place, scores.shape))
            self.kept.append(_Candidate(float(flat[place]), some, at))
        if len(self.kept) > 2 * _KEPT:
            self.kept = sorted(self.kept, key=lambda each: -each.score)[:_KEPT]
        return float(flat[best[0]]) if enough.any() else None

    def _sums(self, some: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
        """Return rows, losses and squares by condition, each of one axis per field (`members`)."""
        shape = tuple(self.fields[n].size for n in some)
        code = self.codes[some[0]]
        for n in some[1:]:
            code = code * self.fields[n].size + self.codes[n]
        if self.is_binary:
            # One count: rows that lost nothing, and rows that lost 1.
            table = np.bincount(code * 2 + (self.losses > 0), minlength=2 * prod(shape))
            right, wrong = table.reshape(-1, 2).T.astype(np.float64)
            parts = [right + wrong, wrong]
        else:
            weights = (None, self.losses, self.losses**2)
            parts = [
                np.bincount(code, each, minlength=prod(shape)).astype(np.float64)
                for each in weights
            ]
        tensor = np.stack(parts).reshape(-1, *shape)
        for axis, n in enumerate(some, 1):
            summed = np.einsum("ci,...i->...c", self.members[n], np.moveaxis(tensor, axis, -1))
            tensor = np.moveaxis(summed, -1, axis)
        return tensor[0], tensor[1], tensor[-1]

    def _scores(self, counts: Floats, sums: Floats, squares: Floats, enough: Mask) -> Floats:
        """Return by how many standard errors each slice loses more than the other rows."""
        inside, rest = np.where(enough, counts, 1.0), np.where(enough, self.rows - counts, 1.0)
        mean, others = sums / inside, (self.total - sums) / rest
        spread = np.maximum(squares / inside - mean**2, 0) / inside
        spread += np.maximum((self.squares - squares) / rest - others**2, 0) / rest
        weak = enough & (mean >= LEAST_RATIO * others) & (mean > others)
        floor = np.finfo(np.float64).tiny
        scores = (mean - others) / np.sqrt(np.maximum(spread, floor))
        return np.where(weak, np.minimum(scores, 1e9), -np.inf)


def _distinct(tables: _Tables, fields: list[_CodedField], search: Integers) -> list[_Candidate]:
    """Choose the best candidates, each of which is weak without the rows of those before it."""
    chosen: list[_Candidate] = []
    free = np.ones(len(search), dtype=np.bool_)
    for candidate in sorted(tables.kept, key=lambda each: (-each.score, each)):
        if len(chosen) == MOST_CANDIDATES:
            break
        few = _mask(fields, candidate, search[:_FEW_ROWS])
        if (few & free[:_FEW_ROWS]).sum() < LEAST_NEW_SHARE / 2 * few.sum():
            continue  # clear without a look at all rows
        own = _mask(fields, candidate, search)
        new = own & free
        if new.sum() < max(tables.least, LEAST_NEW_SHARE * own.sum()):
            continue
        if not chosen or _standard_errors(tables.losses[free], new[free]) >= LEAST_NEW:
            chosen.append(candidate)
            free &= ~own
    return chosen


def _mask(fields: list[_CodedField], candidate: _Candidate, rows: Integers) -> Mask:
    masks = [
        fields[n].members[place].astype(np.bool_)[fields[n].codes[rows]]
        for n, place in zip(candidate.fields, candidate.conditions, strict=True)
    ]
    return np.asarray(np.logical_and.reduce(masks))


def _confirm(
    evaluated: EvaluatedRows,
    losses: Floats,
    fields: list[_CodedField],
    candidates: list[_Candidate],
    confirm: Integers,
) -> tuple[WeakSlice, ...]:
    groups = evaluated.bootstrap.groups
    groups = None if groups is None else groups[confirm]
    masks = [_mask(fields, candidate, confirm) for candidate in candidates]
    tests = [_p_value(mask, losses[confirm], groups) for mask in masks]
    order = sorted(range(len(tests)), key=lambda n: tests[n])
    found: list[WeakSlice] = []
    corrected = 0.0
    for place, n in enumerate(order):
        corrected = max(corrected, min(1.0, tests[n] * (len(tests) - place)))
        candidate, mask = candidates[n], masks[n]
        inside, rest = confirm[mask], confirm[~mask]
        if corrected > LARGEST_P or len(inside) < 2:
            break
        some = evaluated.take(inside, resamples=RESAMPLES)
        texts = [
            fields[f].conditions[c].text
            for f, c in zip(candidate.fields, candidate.conditions, strict=True)
        ]
        found.append(
            WeakSlice(
                condition=" and ".join(texts),
                fields=tuple(fields[f].name for f in candidate.fields),
                rows=len(inside),
                share=len(inside) / len(confirm),
                loss=some.bootstrap.mean(losses[inside]),
                other_loss=float(losses[rest].mean()),
                p_value=corrected,
            )
        )
    return tuple(found)


def _p_value(mask: Mask, losses: Floats, groups: Integers | None) -> float:
    """
    Return the probability that chance makes a slice lose so much more than the other rows.

    One-sided; exact for wrong answers in at most `EXACT_ROWS` rows (Fisher), else normal. The
    rows of a group count as one observation.
    """
    from scipy import special, stats

    inside = int(mask.sum())
    if groups is None and inside <= EXACT_ROWS and np.isin(losses, (0.0, 1.0)).all():
        wrong = int(losses.sum()), int(losses[mask].sum())
        return float(stats.hypergeom.sf(wrong[1] - 1, len(losses), wrong[0], inside))
    return float(special.ndtr(-_standard_errors(losses, mask, groups)))


def _standard_errors(losses: Floats, mask: Mask, groups: Integers | None = None) -> float:
    """Return by how many standard errors some rows lose more than the others."""
    inside, rest = int(mask.sum()), int((~mask).sum())
    if inside < 2 or rest < 2:
        return 0.0
    mean, others = losses[mask].mean(), losses[~mask].mean()
    parts = np.where(mask, (losses - mean) / inside, -(losses - others) / rest)
    if groups is not None:
        parts = np.bincount(groups, parts)
    spread = float(np.sqrt((parts**2).sum()))
    if spread == 0:
        return np.inf if mean > others else 0.0
    return float((mean - others) / spread)
