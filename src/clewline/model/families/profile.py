"""
The reference profile, how often each field and output took which values, and background rows.

Counts stand in fixed bins, so that live rows can be counted into the same ones. A bin with the
edges `a` and `b` holds `a < value <= b`; the first and the last bin are open.

Source:
    Bins of about equal counts: Dougherty, Kohavi, Sahami, Supervised and unsupervised
    discretization of continuous features (ICML 1995).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.outputs import Outputs, Predictor, join_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature
from clewline.signature.field_rules import value_in_kind

BINS = 20
LEVELS = 1000
"""Largest number of levels of one field that are counted separately."""

OUTPUT_ROWS = 5000
"""Largest number of rows that the model answers for the profile of its outputs."""

BACKGROUND_ROWS = 256
_ROWS_PER_CALL = 1000


class ProfileHistogram(msgspec.Struct, frozen=True):
    """Counts between ascending edges; one more count than edges."""

    edges: list[float]
    counts: list[int]


class FieldProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The counts of one field.

    A histogram holds the values, of a text its number of characters, of a tensor the mean of
    each row's elements. A category counts its levels instead.
    """

    kind: str
    nulls: int
    histogram: ProfileHistogram | None = None
    levels: dict[str, int] | None = None
    other: int = 0  # rows with a level that is not among them


class OutputProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The counts of the model's answers to `rows` rows of the test or the training table."""

    table: Literal["test", "train"]
    rows: int
    labels: list[int] | None = None  # count of each label, in the order of the signature
    probabilities: list[ProfileHistogram] | None = None  # of each label; None if there are none
    values: ProfileHistogram | None = None  # of a tensor the mean of each row's elements


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `profile.json`."""

    format: int = 1
    rows: int  # of the training table
    fields: dict[str, FieldProfile]
    output: OutputProfile


def measure_profile(
    signature: Signature,
    train: Columns,
    predictor: Predictor | None,
    *,
    test: Columns | None = None,
    seed: int = 0,
) -> Profile:
    """
    Count the training rows, and the model's answers to the test rows.

    Args:
        signature: Of the model.
        train: The training table; without rows nothing is counted.
        predictor: The compiled model; None for preprocessing, which answers nothing itself.
        test: Rows that the model has not seen. Without them its answers to training rows are
            counted, in which it is more confident than in answers to new rows.
        seed: Seed of the sample of rows that are answered.
    """
    output = OutputProfile(table="train" if test is None or predictor is None else "test", rows=0)
    rows = _sample_rows(train if test is None else test, OUTPUT_ROWS, seed)
    if predictor is not None and len(rows):
        starts = range(0, len(rows), _ROWS_PER_CALL)
        batches = (take_rows(rows, slice(at, at + _ROWS_PER_CALL)) for at in starts)
        answers = join_outputs([predictor.predict(batch) for batch in batches])
        output = _profile_output(signature, answers, output.table, len(rows))
    fields = {
        field.name: _profile_numbers(field, train.numbers[:, place])
        for place, field in enumerate(signature.numeric)
    }
    for place, field in enumerate(signature.textual):
        fields[field.name] = _profile_texts(field, train.texts[:, place])
    for field in signature.tensors:
        fields[field.name] = _profile_numbers(field, _row_means(train.tensors[field.name]))
    return Profile(rows=len(train), fields=fields, output=output)


def background_rows(signature: Signature, train: Columns, *, seed: int = 0) -> list[dict[str, Any]]:
    """Draw up to 256 training rows, each a JSON object with every field of the signature."""
    drawn = _sample_rows(train, BACKGROUND_ROWS, seed)
    columns: dict[str, list[Any]] = {}
    for field, values in zip(signature.numeric, drawn.numbers.T.tolist(), strict=True):
        columns[field.name] = [
            None if math.isnan(value) else value_in_kind(field, value) for value in values
        ]
    for field, texts in zip(signature.textual, drawn.texts.T.tolist(), strict=True):
        columns[field.name] = texts
    for field in signature.tensors:
        columns[field.name] = drawn.tensors[field.name].tolist()
    names = [field.name for field in signature.fields]
    return [{name: columns[name][row] for name in names} for row in range(len(drawn))]


def _sample_rows(columns: Columns, most: int, seed: int) -> Columns:
    """Draw up to `most` rows, none twice, in their order."""
    n = len(columns)
    if n <= most:
        return columns
    return take_rows(columns, np.sort(np.random.default_rng(seed).choice(n, most, replace=False)))


def _profile_numbers(field: Field, values: NDArray[np.float64]) -> FieldProfile:
    known = values[~np.isnan(values)]
    nulls = len(values) - len(known)
    return FieldProfile(kind=field.kind, nulls=nulls, histogram=_histogram(known))


def _profile_texts(field: Field, values: NDArray[np.object_]) -> FieldProfile:
    known = [value for value in values if value is not None]
    nulls = len(values) - len(known)
    if field.kind == "text":
        lengths = np.array([len(value) for value in known], dtype=np.float64)
        return FieldProfile(kind=field.kind, nulls=nulls, histogram=_histogram(lengths))
    names, counts = np.unique(np.array(known, dtype=object), return_counts=True)
    # The most frequent levels; equally frequent ones by name.
    most = sorted(zip(counts.tolist(), names, strict=True), key=lambda pair: (-pair[0], pair[1]))
    levels = {name: count for count, name in sorted(most[:LEVELS], key=lambda pair: pair[1])}
    other = sum(count for count, _ in most[LEVELS:])
    return FieldProfile(kind=field.kind, nulls=nulls, levels=levels, other=other)


def _profile_output(
    signature: Signature, outputs: Outputs, table: Literal["test", "train"], rows: int
) -> OutputProfile:
    values = outputs.values if outputs.tensor is None else _row_means(outputs.tensor)
    if values is not None:
        return OutputProfile(table=table, rows=rows, values=_histogram(values))
    if outputs.choices is None:
        raise TypeError("a predictor answered neither values nor choices")
    labels = np.bincount(outputs.choices, minlength=len(signature.output.labels or ())).tolist()
    even, found = np.linspace(0, 1, BINS + 1)[1:-1], outputs.probabilities
    shares = None if found is None else [_count(column, even) for column in found.T]
    return OutputProfile(table=table, rows=rows, labels=labels, probabilities=shares)


def _row_means(values: NDArray[np.generic]) -> NDArray[np.float64]:
    flat = values.reshape(len(values), int(np.prod(values.shape[1:]))).astype(np.float64)
    return np.asarray(flat.mean(axis=1))


def _histogram(values: NDArray[np.float64]) -> ProfileHistogram:
    """Count into bins of about equal counts; if there are few values, one bin each."""
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        return _count(values, distinct)
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    # An edge is a value that occurs, so that it is the same on every machine.
    return _count(values, np.unique(np.quantile(values, inner, method="lower")))


def _count(values: NDArray[np.float64], edges: NDArray[np.float64]) -> ProfileHistogram:
    bins = np.searchsorted(edges, values, side="left")
    return ProfileHistogram(edges.tolist(), np.bincount(bins, minlength=len(edges) + 1).tolist())
