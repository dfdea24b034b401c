"""The contract of a model runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clewline.entry_points import load_entry_point
from clewline.signature.columns import Columns
from clewline.signature.field import Signature


@dataclass(frozen=True, slots=True)
class Outputs:
    """
    Answers, one a row.

    A classifier fills `choices` (index into the signature's labels) and
    `probabilities`; a regressor fills `values`; what answers with arrays, `tensor`.
    """

    choices: NDArray[np.int64] | None = None  # shape (n,)
    probabilities: NDArray[np.float64] | None = None  # shape (n, labels)
    values: NDArray[np.float64] | None = None  # shape (n,)
    tensor: NDArray[np.generic] | None = None  # shape (n, *shape of the signature's output)

    def __len__(self) -> int:
        for part in (self.choices, self.values, self.tensor):
            if part is not None:
                return len(part)
        raise TypeError("outputs that hold no answers have no length")


class Predictor(Protocol):
    """
    A loaded model.

    May be called from any thread, one call at a time. The same row gives the
    same bits whatever batch it stands in. Owns its memory until `close`.
    """

    def predict(self, columns: Columns) -> Outputs: ...

    def close(self) -> None: ...


@runtime_checkable
class Transformer(Protocol):
    """
    Loaded preprocessing: a package whose signature's task is "transform".

    What `Predictor` promises of threads, bits and memory holds here too. Takes rows
    of the signature's fields and gives the same rows, in order, as the fields of its
    output: the columns stand as `signature.transformed` orders them.
    """

    def transform(self, columns: Columns) -> Columns: ...

    def close(self) -> None: ...


class Runtime(Protocol):
    """
    Loads a model from the verified bytes of a package; never from a path, never by pickle.

    A runtime of packages whose task is "transform" gives a `Transformer` instead.
    """

    name: str

    def load(self, files: Mapping[str, bytes], signature: Signature) -> Predictor: ...


@cache
def runtime_named(name: str) -> Runtime:
    """
    Return the runtime of a name.

    Raises:
        NotSupported: No installed distribution offers it.
    """
    runtime: Runtime = load_entry_point("clewline.runtimes", name)()
    return runtime


Scalar = TypeVar("Scalar", bound=np.generic)


def take_rows(columns: Columns, rows: slice | NDArray[np.intp]) -> Columns:
    """Take some rows."""
    return Columns(
        np.ascontiguousarray(columns.numbers[rows]),
        np.ascontiguousarray(columns.texts[rows]),
        {name: values[rows] for name, values in columns.tensors.items()},
    )


def take_outputs(outputs: Outputs, rows: slice | NDArray[np.intp]) -> Outputs:
    """Take the answers of some rows."""
    return Outputs(
        choices=None if outputs.choices is None else outputs.choices[rows],
        probabilities=None if outputs.probabilities is None else outputs.probabilities[rows],
        values=None if outputs.values is None else outputs.values[rows],
        tensor=None if outputs.tensor is None else outputs.tensor[rows],
    )


def join_outputs(parts: list[Outputs]) -> Outputs:
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


def stack_rows(parts: list[Columns]) -> Columns:
    """Put rows of several tables one under the other."""
    return Columns(
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.texts for part in parts]),
        {name: np.concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors},
    )
