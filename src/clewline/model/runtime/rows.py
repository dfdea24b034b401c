"""Rows cut apart and answers put together."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime.protocol import Outputs
from clewline.signature.columns import Columns

Scalar = TypeVar("Scalar", bound=np.generic)


def part_of(columns: Columns, rows: slice | NDArray[np.intp]) -> Columns:
    """Take some rows."""
    return Columns(
        np.ascontiguousarray(columns.numbers[rows]),
        np.ascontiguousarray(columns.texts[rows]),
        {name: values[rows] for name, values in columns.tensors.items()},
    )


def take(outputs: Outputs, rows: slice | NDArray[np.intp]) -> Outputs:
    """Take the answers of some rows."""
    return Outputs(
        choices=None if outputs.choices is None else outputs.choices[rows],
        probabilities=None if outputs.probabilities is None else outputs.probabilities[rows],
        values=None if outputs.values is None else outputs.values[rows],
        tensor=None if outputs.tensor is None else outputs.tensor[rows],
    )


def join(parts: list[Outputs]) -> Outputs:
    """Put answers of several calls one behind the other."""
    first = parts[0]
    return Outputs(
        choices=None if first.choices is None else _stack([p.choices for p in parts]),
        probabilities=None
        if first.probabilities is None
        else _stack([p.probabilities for p in parts]),
        values=None if first.values is None else _stack([p.values for p in parts]),
        tensor=None if first.tensor is None else _stack([p.tensor for p in parts]),
    )


def _stack(arrays: list[NDArray[Scalar] | None]) -> NDArray[Scalar]:
    return np.concatenate([array for array in arrays if array is not None])


def stack(parts: list[Columns]) -> Columns:
    """Put rows of several tables one under the other."""
    return Columns(
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.texts for part in parts]),
        {name: np.concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors},
    )
