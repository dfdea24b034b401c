"""Comparing a converted model with its original: labels, numbers, bits at every batch size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np

from clewline.model.runtime.outputs import Outputs, predict_in_batches, take_outputs, take_rows
from clewline.signature.columns import Columns

TOLERANCE = 1e-6
"""Largest allowed difference of a probability, or of a value relative to the largest value."""

BATCH_SIZES = (1, 2, 7, 64, 1000)

Predict = Callable[[Columns], Outputs]


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A form that was tried and not served, and the reason."""

    form: str
    reason: str


class EquivalenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    How the served form was compared with the original model: `equality.json` of a package.

    `verified` means: on all `rows` + `synthetic_rows` no label differed and no number by
    more than `tolerance`. It is a statement about those rows, not a proof.
    """

    verified: bool
    form: str  # "trees on raw fields", "converted by skl2onnx", or the library that answers
    executed_by: str = "ONNX"
    reason: str | None = None  # why no converted form is served
    rows: int  # of the test table
    synthetic_rows: int
    synthetic_kinds: dict[str, int] = {}  # kind of synthetic row → how many
    split_thresholds: int = 0  # distinct ones in the model's raw fields
    split_thresholds_tried: int = 0  # of those, with rows at ± 1 ulp
    flips: int = 0  # rows whose label differed
    max_difference: float = 0.0  # of a probability, or of a value relative to the largest
    identical_rows: int = 0  # rows whose every number has the same bits
    tolerance: float = TOLERANCE
    batch_sizes: tuple[int, ...] = ()  # at which rows gave the same bits as all at once
    rows_in_batches: tuple[int, ...] = ()  # how many rows were compared at each batch size
    rows_per_call: int | None = None  # 1 if bits depend on the batch: the model gets single rows
    rows_one_by_one: int = 0  # rows that were compared again in calls of one row
    attempts: tuple[Attempt, ...] = ()  # forms tried before
    versions: dict[str, str] = {}

    @property
    def sentence(self) -> str:
        """
        Summarise the record in one line.

        >>> record = EquivalenceRecord(
        ...     verified=False, form="scikit-learn", reason="why", rows=9, synthetic_rows=0
        ... )
        >>> record.sentence
        'served by scikit-learn itself: why'
        """
        most = self.max_difference
        if not self.verified:
            return f"served by {self.form} itself: {self.reason}{self._unsteadiness}"
        apart = f"no label differs, no number by more than {most:.2g}" if most else "no difference"
        return (
            f"{self.executed_by} ({self.form}) verified equal on "
            f"{self.rows + self.synthetic_rows:,} rows ({self.rows:,} of the test table, "
            f"{self.synthetic_rows:,} synthetic): {apart}"
        )

    @property
    def _unsteadiness(self) -> str:
        """Say that the model's own answers depend on the rows beside a row, if they do."""
        if not self.rows_one_by_one or not (self.flips or self.max_difference > self.tolerance):
            return ""
        apart = f"{self.flips} labels differ"
        if not self.flips:
            apart = f"numbers differ by up to {self.max_difference:.2g}"
        return f"; {apart} between a row asked alone and among others, so each is asked alone"


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """A model in the form that will be served."""

    files: dict[str, bytes]  # such as model.onnx, or model.skops and frame.json
    runtime: str  # the family that loads the files
    equality: EquivalenceRecord
    encoding: dict[str, Any] = field(default_factory=dict)  # how fields become model inputs, JSON


@dataclass(frozen=True, slots=True)
class AnswerDifference:
    """How far answers are from those of the original."""

    flips: int
    largest: float
    identical: int  # rows
    rows: int
    one_by_one: int = 0  # rows that were also compared in calls of one row

    @property
    def reason(self) -> str | None:
        """Why the two are not equal; None when they are."""
        if self.flips:
            return f"{self.flips} of {self.rows} labels differ"
        if not self.largest <= TOLERANCE:
            return f"numbers differ by up to {self.largest:.2g} on {self.rows} rows"
        return None

    def worse_of(self, other: AnswerDifference, *, same_rows: bool = False) -> AnswerDifference:
        """Return the larger difference of both; of other rows, or of the same in single calls."""
        flips, largest = max(self.flips, other.flips), max(self.largest, other.largest)
        if same_rows:
            return AnswerDifference(flips, largest, self.identical, self.rows, other.rows)
        identical, rows = self.identical + other.identical, self.rows + other.rows
        return AnswerDifference(flips, largest, identical, rows)


def difference(wanted: Outputs, found: Outputs) -> AnswerDifference:
    """Compare answers row by row. A value is compared relative to the largest of its column."""
    rows = len(wanted)
    shapes, found_shapes = (
        [getattr(array, "shape", None) for array in outputs.arrays] for outputs in (wanted, found)
    )
    if shapes != found_shapes:
        return AnswerDifference(rows, math.inf, 0, rows)
    flips = 0
    if wanted.choices is not None and found.choices is not None:
        flips = int(np.count_nonzero(wanted.choices != found.choices))
    largest, same = 0.0, np.ones(rows, dtype=bool)
    if wanted.tensor is not None and found.tensor is not None:
        flips += int(
            np.count_nonzero((wanted.tensor != found.tensor).reshape(rows, -1).any(axis=1))
        )
    for one, other in ((wanted.probabilities, found.probabilities), (wanted.values, found.values)):
        if one is None or other is None:
            continue
        scale = np.ones(1)
        if one is wanted.values:
            scale = np.where(np.isfinite(one), np.abs(one), 0.0).max(axis=0, initial=0.0)
            scale = np.where(scale == 0, 1.0, scale)
        # NaN equals NaN, and is infinitely far from any number.
        equal = (one == other) | (np.isnan(one) & np.isnan(other))
        with np.errstate(all="ignore"):
            gaps = np.where(equal, 0.0, np.abs(one - other) / scale)
        largest = max(largest, float(np.where(np.isnan(gaps), np.inf, gaps).max(initial=0.0)))
        same &= (one == other).reshape(len(one), -1).all(axis=1)
    return AnswerDifference(flips, largest, int(same.sum()), rows)


def same_bits(predict: Predict, rows: Columns, calls: int) -> bool:
    """
    Say whether rows give the same bits at each of `BATCH_SIZES`.

    Args:
        predict: Called at most `calls` times for each size.
        rows: The first `calls` * size of them are compared at a size.
        calls: Limits the time.
    """
    whole = predict(rows)
    for size, count in zip(BATCH_SIZES, rows_in_batches(len(rows), calls), strict=True):
        first = slice(0, count)
        found = predict_in_batches(predict, take_rows(rows, first), size)
        if take_outputs(whole, first).to_bytes() != found.to_bytes():
            return False
    return True


def rows_in_batches(rows: int, calls: int) -> tuple[int, ...]:
    """Return how many of the rows `same_bits` compares at each of `BATCH_SIZES`."""
    return tuple(min(rows, calls * size) for size in BATCH_SIZES)


def batch_record(rows: int, calls: int, rows_per_call: int | None) -> dict[str, Any]:
    """Return the fields of a record that say at which batch sizes the bits were the same."""
    if rows_per_call is not None:
        return {"rows_per_call": rows_per_call}
    return {"batch_sizes": BATCH_SIZES, "rows_in_batches": rows_in_batches(rows, calls)}


def versions_of(*distributions: str) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: version(name) for name in distributions}
