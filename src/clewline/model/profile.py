"""
The reference profile: how often each field and output took which values.

Counts stand in fixed bins, so that live rows can be counted into the same ones.
A bin with the edges `a` and `b` holds `a < value <= b`; the first and the last
one are open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.outputs import Outputs, Predictor
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature

BINS = 20
LEVELS = 1000
"""Most levels of one field that are counted each for itself."""

OUTPUT_ROWS = 5000
"""Most rows that the model answers for the profile of its outputs."""

PIECE = 1000


class ProfileHistogram(msgspec.Struct, frozen=True):
    """Counts between edges; one more count than edges."""

    edges: list[float]
    counts: list[int]


class FieldProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One field.

    A histogram of the values; of texts the number of characters, of tensors the
    mean of each row's elements. Categories count their levels instead.
    """

    kind: str
    nulls: int
    histogram: ProfileHistogram | None = None
    levels: dict[str, int] | None = None
    other: int = 0  # rows with a level that is not among them


class OutputProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model answered to `rows` rows of the test or the training table."""

    table: Literal["test", "train"]
    rows: int
    labels: list[int] | None = None  # answers, in the order of the signature's labels
    probabilities: list[ProfileHistogram] | None = None  # likewise; None where there are none
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
    predictor: Predictor,
    *,
    test: Columns | None = None,
    seed: int = 0,
) -> Profile:
    """
    Count the training rows, and the model's answers to the test rows.

    Args:
        signature: Of the model.
        train: The training table; without rows nothing is counted.
        predictor: The compiled model.
        test: Rows that the model has not seen; without them its answers to
            training rows are counted, which are surer than those to new ones.
        seed: Of the sample of rows that are answered.
    """
    unseen = train if test is None else test
    rows = take_rows(unseen, sample_rows(unseen, OUTPUT_ROWS, seed))
    known = OutputProfile(table="train", rows=0)
    output = _output(signature, _answer(predictor, rows)) if len(rows) else known
    return Profile(
        rows=len(train),
        fields=dict(_fields(signature, train)),
        output=msgspec.structs.replace(
            output, table="train" if test is None else "test", rows=len(rows)
        ),
    )


def measure_fields(signature: Signature, train: Columns) -> Profile:
    """Count the training rows of preprocessing, which answers nothing itself."""
    fields = dict(_fields(signature, train))
    return Profile(rows=len(train), fields=fields, output=OutputProfile(table="train", rows=0))


def sample_rows(columns: Columns, most: int, seed: int) -> NDArray[np.int64]:
    """Choose rows at random, without repeats; their positions, ascending."""
    n = len(columns)
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def take_rows(columns: Columns, rows: NDArray[np.int64]) -> Columns:
    """Give some of the rows."""
    tensors = {name: values[rows] for name, values in columns.tensors.items()}
    return Columns(columns.numbers[rows], columns.texts[rows], tensors)


def _answer(predictor: Predictor, columns: Columns) -> Outputs:
    starts = range(0, len(columns), PIECE)
    rows = np.arange(len(columns))
    parts = [predictor.predict(take_rows(columns, rows[start : start + PIECE])) for start in starts]
    joined: dict[str, Any] = {}
    for name in ("choices", "probabilities", "values", "tensor"):
        arrays = [getattr(part, name) for part in parts]
        joined[name] = None if any(array is None for array in arrays) else np.concatenate(arrays)
    return Outputs(**joined)


def _fields(signature: Signature, columns: Columns) -> Iterator[tuple[str, FieldProfile]]:
    for place, field in enumerate(signature.numeric):
        yield field.name, _numbers(field, columns.numbers[:, place])
    for place, field in enumerate(signature.textual):
        yield field.name, _texts(field, columns.texts[:, place])
    for field in signature.tensors:
        values = columns.tensors[field.name]
        yield field.name, _numbers(field, _means(values))


def _means(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Give the mean of each row's elements."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:]))).astype(np.float64)
    means: NDArray[np.float64] = flat.mean(axis=1)
    return means


def _numbers(field: Field, values: NDArray[np.generic]) -> FieldProfile:
    known = values.astype(np.float64)
    known = known[~np.isnan(known)]
    return FieldProfile(
        kind=field.kind, nulls=len(values) - len(known), histogram=_histogram(known)
    )


def _texts(field: Field, values: NDArray[np.object_]) -> FieldProfile:
    known = [value for value in values if value is not None]
    nulls = len(values) - len(known)
    if field.kind == "text":
        lengths = np.array([len(value) for value in known], dtype=np.float64)
        return FieldProfile(kind=field.kind, nulls=nulls, histogram=_histogram(lengths))
    names, counts = np.unique(np.array(known, dtype=object), return_counts=True)
    # The most frequent ones, among equals by name.
    most = sorted(zip(counts.tolist(), names, strict=True), key=lambda pair: (-pair[0], pair[1]))
    levels = {name: count for count, name in sorted(most[:LEVELS], key=lambda pair: pair[1])}
    other = sum(count for count, _ in most[LEVELS:])
    return FieldProfile(kind=field.kind, nulls=nulls, levels=levels, other=other)


def _output(signature: Signature, outputs: Outputs) -> OutputProfile:
    if outputs.values is not None:
        return OutputProfile(table="test", rows=0, values=_histogram(outputs.values))
    if outputs.tensor is not None:
        return OutputProfile(table="test", rows=0, values=_histogram(_means(outputs.tensor)))
    labels = signature.output.labels or ()
    if outputs.choices is None:
        raise TypeError("a predictor answered neither values nor choices")
    counts = np.bincount(outputs.choices, minlength=len(labels)).tolist()
    return OutputProfile(
        table="test", rows=0, labels=counts, probabilities=_probabilities(outputs.probabilities)
    )


def _probabilities(found: NDArray[np.float64] | None) -> list[ProfileHistogram] | None:
    """Count into even bins; None where the model tells labels alone."""
    even = np.linspace(0, 1, BINS + 1)[1:-1]
    return None if found is None else [_counted(column, even) for column in found.T]


def _histogram(values: NDArray[np.float64]) -> ProfileHistogram:
    """Count into bins that hold about as many training values each; few values, one bin each."""
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        return _counted(values, distinct)
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    # An edge is a value that occurs, so that it is the same on every machine.
    return _counted(values, np.unique(np.quantile(values, inner, method="lower")))


def _counted(values: NDArray[np.float64], edges: NDArray[np.float64]) -> ProfileHistogram:
    bins = np.searchsorted(edges, values, side="left")
    return ProfileHistogram(edges.tolist(), np.bincount(bins, minlength=len(edges) + 1).tolist())
