"""
Robustness: how small a change flips an answer, what noise and missing values cost, and how few
queries are enough to rebuild the model.

Everything is measured by asking the model about changed test rows; the number of rows that it
answers is bounded and stated.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, ModelFailed
from clewline.evaluation.answers import EvaluationTask, ModelPredictions
from clewline.evaluation.asked_model import AskedModel
from clewline.evaluation.calibration import wilson_interval
from clewline.evaluation.columns import EvaluatedColumn, EvaluatedColumns
from clewline.evaluation.metrics import Floats, Integers, Interval, bootstrap_intervals
from clewline.evaluation.permutation_importance import headline_loss
from clewline.evaluation.surrogate_tree import tree_matrix

FLIPPED_ROWS, REFERENCE_ROWS = 200, 2000
FLIP_BUDGET = 20_000
"""Rows that the model answers at most while flips are made smaller."""
DISTURBED_ROWS = 500
NOISE_SHARES = (0.01, 0.05, 0.1, 0.25)
"""Standard deviations of the noise, as shares of the field's own."""
FIELD_NOISE = 0.1
FIELDS = 30
QUERIES = (10, 30, 100, 300, 1000, 3000, 5000)
EXTRACTION_TREES, EXTRACTION_TESTED = 30, 2000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
RESAMPLES = 200


class FieldShare(msgspec.Struct, frozen=True):
    """A field, and in which share of the flips it was changed."""

    field: str
    share: float


class FlipDistances(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far rows are from a plausible row with another answer.

    The distance counts a number in median absolute deviations of the field, and another level, or
    null, as 1. A row is changed towards the nearest test row with another answer, and every
    change that is not needed is taken back, the largest first.
    """

    rows: int
    reference_rows: int
    no_other_answer: int  # rows for which no reference row has another answer
    quantiles: tuple[tuple[float, float], ...]  # (share of the rows, their distance at most)
    median: Interval
    changed_fields: tuple[tuple[int, float], ...]  # (number of fields, share of the rows)
    fields: tuple[FieldShare, ...]  # changed in the flips, the most frequent first


class NoiseLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What normal noise on a numeric field, or on all, costs in the headline metric."""

    field: str | None  # None: all numeric fields at once
    share: float  # standard deviation of the noise, as a share of the field's own
    loss: Interval  # above 0: worse
    flips: Interval | None  # share of the rows whose label changes; None of a regression


class MissingLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What it costs in the headline metric if a field is missing."""

    field: str
    null: Interval | None  # None: the model refuses null
    replaced: Interval  # by the value of another row


class ExtractionPoint(msgspec.Struct, frozen=True):
    """How well a copy that was trained on so many answers agrees with the model."""

    queries: int
    agreement: Interval  # share of equal labels; of a regression R² with the model's values


class Extraction(msgspec.Struct, frozen=True, kw_only=True):
    """
    How few queries rebuild the model.

    The queries are rows whose every field comes from another test row, so whoever asks needs the
    range of each field and no data. The copy is a random forest.

    Source:
        Tramèr, Zhang, Juels, Reiter, Ristenpart, Stealing machine learning models via prediction
        APIs (USENIX Security 2016).
    """

    points: tuple[ExtractionPoint, ...]
    tested_on: int  # test rows
    one_answer: float  # agreement of the most frequent answer; of a regression 0


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """How a model reacts to changed rows."""

    metric: str  # of the losses
    rows: int  # that were disturbed
    model_rows: int  # that the model answered
    seed: int
    flips: FlipDistances | None  # None of a regression, and without fields
    noise: tuple[NoiseLoss, ...]
    missing: tuple[MissingLoss, ...]
    extraction: Extraction | None  # None without fields


def measure_robustness(
    model: Any,
    task: EvaluationTask,
    features: Any,
    columns: EvaluatedColumns,
    answers: ModelPredictions,
    *,
    seed: int = 0,
) -> Robustness:
    """
    Measure how a model reacts to changed test rows.

    Args:
        model: Has `predict`; may have `predict_proba`.
        task: Of the evaluation.
        features: The test table without the target, n rows.
        columns: Its columns of numbers, date-times and levels.
        answers: Of the model to the rows as they are.
        seed: Of every draw.
    """
    from clewline.model_families import fitted_names_among

    known = fitted_names_among(model, list(columns))
    used = {name: column for name, column in columns.items() if known is None or name in known}
    used = dict(list(used.items())[:FIELDS])
    asked = AskedModel(model, task, features)
    mixed: Integers = np.random.default_rng(seed).permutation(task.rows)
    rows = np.sort(mixed[:DISTURBED_ROWS])
    disturbed = _Disturbed(asked, task.take(rows), rows, answers.take(rows), seed)
    return Robustness(
        metric=task.headline,
        rows=len(rows),
        flips=_flip_distances(asked, used, answers, mixed, seed) if task.labels and used else None,
        noise=tuple(disturbed.noise(used)),
        missing=tuple(disturbed.missing(name) for name in used),
        extraction=_extraction(asked, task, used, answers, mixed, seed) if used else None,
        model_rows=asked.model_rows,
        seed=seed,
    )


# ---- flips


def _flip_distances(
    asked: AskedModel,
    columns: EvaluatedColumns,
    answers: ModelPredictions,
    mixed: Integers,
    seed: int,
) -> FlipDistances | None:
    reference = np.sort(mixed[:REFERENCE_ROWS])
    count = min(FLIPPED_ROWS, max(1, FLIP_BUDGET // len(columns)))
    rows = np.sort(mixed[:count])
    names = list(columns)
    target = np.full(len(rows), -1)
    for place, row in enumerate(rows.tolist()):
        others = reference[answers.choices[reference] != answers.choices[row]]
        if len(others):
            apart = sum(field_distances(column, row, others) for column in columns.values())
            target[place] = others[int(np.argmin(apart))]
    has_other = target >= 0
    missing = int((~has_other).sum())
    rows, target = rows[has_other], target[has_other]
    if not len(rows):
        return None
    apart = np.column_stack(
        [field_distances(columns[name], rows, target, paired=True) for name in names]
    )
    changed = apart > 0
    order = np.argsort(-apart, axis=1, kind="stable")
    everyone = np.arange(len(rows))
    for rank in range(len(names)):
        tried = changed.copy()
        tried[everyone, order[:, rank]] = False
        sources = {
            name: np.where(tried[:, place], target, rows) for place, name in enumerate(names)
        }
        found = asked.ask_mixed(rows, sources).choices
        flipped = found != answers.choices[rows]
        changed[flipped] = tried[flipped]
    distances = (apart * changed).sum(axis=1)
    used = changed.sum(axis=1)
    shares = changed.mean(axis=0)
    ordered = np.argsort(-shares, kind="stable").tolist()
    return FlipDistances(
        rows=len(rows),
        reference_rows=len(reference),
        no_other_answer=missing,
        quantiles=tuple(zip(QUANTILES, np.quantile(distances, QUANTILES).tolist(), strict=True)),
        median=_median_interval(distances, seed),
        changed_fields=tuple(
            (int(size), float((used == size).mean())) for size in np.unique(used).tolist()
        ),
        fields=tuple(
            FieldShare(names[place], float(shares[place])) for place in ordered if shares[place]
        ),
    )


def field_distances(
    column: EvaluatedColumn, row: Any, others: Integers, *, paired: bool = False
) -> Floats:
    """
    Return how far the values of rows are apart in one field.

    Args:
        column: The field.
        row: One row, or with `paired` as many as `others`.
        others: Rows, shape (m,).
        paired: Compare row by row.

    Returns:
        Median absolute deviations of a number; 1 for another level, and for null beside a value.
    """
    mine = column.values[row] if paired else np.full(len(others), column.values[row])
    theirs = column.values[others]
    if not column.is_numeric:
        return np.asarray(mine != theirs, dtype=np.float64)
    null, other_null = np.isnan(mine), np.isnan(theirs)
    apart = np.abs(mine - theirs) / _spread(column.values)
    return np.where(null & other_null, 0.0, np.where(null | other_null, 1.0, apart))


def _spread(values: Floats) -> float:
    """Return the median absolute deviation, or else the standard deviation, or else 1."""
    present = values[~np.isnan(values)]
    if not len(present):
        return 1.0
    middle = float(np.median(np.abs(present - np.median(present))))
    return middle or float(present.std()) or 1.0


def _median_interval(values: Floats, seed: int) -> Interval:
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975]).tolist()
    return Interval(float(np.median(values)), low, high)


# ---- noise and missing values


class _Disturbed:
    """Test rows that are disturbed, and what that costs."""

    def __init__(
        self,
        asked: AskedModel,
        task: EvaluationTask,
        rows: Integers,
        before: ModelPredictions,
        seed: int,
    ) -> None:
        self._asked, self._task, self._rows = asked, task, rows
        self._before, self._seed = before, seed

    def noise(self, columns: EvaluatedColumns) -> list[NoiseLoss]:
        """Add noise to each numeric field, then to all of them."""
        numbers = {
            name: column
            for name, column in columns.items()
            if column.is_numeric and not column.is_datetime and _deviation(column) > 0
        }
        found = [self._noise({name: each}, FIELD_NOISE, name) for name, each in numbers.items()]
        if numbers:
            found += [self._noise(numbers, share, None) for share in NOISE_SHARES]
        return found

    def missing(self, name: str) -> MissingLoss:
        """Leave a field null, and replace it."""
        null = None
        with suppress(InvalidInput, ModelFailed):  # the model takes no null there
            null = self._loss(self._asked.ask_without(self._rows, name))
        other = np.random.default_rng(self._seed).permutation(self._rows)
        replaced = self._loss(self._asked.ask_mixed(self._rows, {name: other}))
        return MissingLoss(field=name, null=null, replaced=replaced)

    def _noise(self, columns: EvaluatedColumns, share: float, field: str | None) -> NoiseLoss:
        random = np.random.default_rng(self._seed)
        added = {
            name: random.normal(0, share * _deviation(column), len(self._rows))
            for name, column in columns.items()
        }
        after = self._asked.ask_noisy(self._rows, added)
        flips = None
        if self._task.labels:
            changed = int((after.choices != self._before.choices).sum())
            flips = wilson_interval(changed, len(self._rows))
        return NoiseLoss(field=field, share=share, loss=self._loss(after), flips=flips)

    def _loss(self, after: ModelPredictions) -> Interval:
        return headline_loss(self._task, self._before, after, 1, self._seed)


def _deviation(column: EvaluatedColumn) -> float:
    present = column.values[~np.isnan(column.values)]
    return float(present.std()) if len(present) else 0.0


# ---- extraction


def _extraction(
    asked: AskedModel,
    task: EvaluationTask,
    columns: EvaluatedColumns,
    answers: ModelPredictions,
    mixed: Integers,
    seed: int,
) -> Extraction:
    """Train forests on answers to synthetic rows, and compare them with the model on test rows."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    random, most = np.random.default_rng(seed), max(QUERIES)
    sources = {name: random.integers(0, task.rows, most) for name in columns}
    learned = asked.ask_mixed(np.zeros(most, dtype=np.int64), sources).choices
    tested = np.sort(mixed[:EXTRACTION_TESTED])
    both = {
        name: column.take(np.concatenate([sources[name], tested]))
        for name, column in columns.items()
    }
    matrix, _ = tree_matrix(both, most + len(tested))
    wanted = answers.choices[tested]
    kind = RandomForestClassifier if task.labels else RandomForestRegressor
    points = []
    for queries in QUERIES:
        copy = kind(EXTRACTION_TREES, random_state=seed, n_jobs=1)
        copy.fit(matrix[:queries], learned[:queries])
        agreement = _agreement(task, copy.predict(matrix[most:]), wanted, seed)
        points.append(ExtractionPoint(queries, agreement))
    one_answer = 0.0
    if task.labels:
        one_answer = float(np.bincount(wanted.astype(np.int64)).max() / len(wanted))
    return Extraction(points=tuple(points), tested_on=len(tested), one_answer=one_answer)


def _agreement(task: EvaluationTask, copied: NDArray[Any], wanted: Floats, seed: int) -> Interval:
    if task.labels:
        return wilson_interval(float((copied == wanted).sum()), len(wanted))

    def explained(weights: Floats) -> dict[str, float]:
        mean = (weights * wanted).sum() / weights.sum()
        spread = float((weights * (wanted - mean) ** 2).sum())
        missed = float((weights * (wanted - copied) ** 2).sum())
        return {"agreement": 1 - missed / spread if spread > 0 else float(missed == 0)}

    found = bootstrap_intervals(explained, len(wanted), seed=seed, resamples=RESAMPLES)
    return found["agreement"]
