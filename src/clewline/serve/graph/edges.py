"""
What goes along the edges of a graph: fields downwards, answers upwards.

A route and a combination take the fields of all that stands below them, so that
one check of a request serves every arm. `AlignedNode` gives each its own fields, in
its own order, and puts the labels of its answers in the order of the parent.
(`clewline.serve.graph.fitting` tells all that does not fit of a file at once; here a
graph that cannot run is refused.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidConfig
from clewline.model.runtime import Outputs
from clewline.serve.graph.batch import Batch, NodeAnswers
from clewline.serve.graph.builder import Node
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature

_NARROWER: dict[frozenset[str], Any] = {
    frozenset({"number", "integer"}): "integer",
    frozenset({"category", "text"}): "category",
}
"""Two kinds of one field → the one whose values both take."""


def union(node: str, below: Mapping[str, Signature]) -> tuple[Field, ...]:
    """
    Join the fields of what stands below a node, in the order of their first mention.

    A field is nullable where all that take it allow null; bounds and levels reach
    as far as any has seen, so that a flag says: nobody has seen this.

    Raises:
        InvalidConfig: A field has kinds, shapes or units that do not go together.
    """
    found: dict[str, tuple[str, Field]] = {}
    for name, signature in below.items():
        for field in signature.fields:
            first, known = found.get(field.name, (name, field))
            found[field.name] = first, _joined(node, known, first, field, name)
    return tuple(field for _, field in found.values())


def same_output(node: str, below: Mapping[str, Signature]) -> Output:
    """
    Give the output that all below a node share, with the labels of the first in its order.

    Raises:
        InvalidConfig: Their tasks or labels differ; names two that do.
    """
    (first, signature), *others = below.items()
    output = signature.output
    for name, other in others:
        theirs = other.output
        if _terms(output) != _terms(theirs):
            raise InvalidConfig(
                f"Below {node!r}, {first} answers {_said(output)} and {name} {_said(theirs)}.",
                "All that stand there must answer the same labels, or all a number.",
            )
    return output


def require_within(node: str, outer: Signature, name: str, inner: Signature) -> None:
    """
    Make sure that the fields that come to a place are enough for what stands there.

    Raises:
        InvalidConfig: A field is missing, of another kind, or may be null where it must not.
    """
    given = {field.name: field for field in outer.fields}
    for field in inner.fields:
        known = given.get(field.name)
        if known is None:
            raise InvalidConfig(
                f"{name} of {node!r} needs the field {field.name!r}, which does not come there.",
                f"What comes there: {', '.join(given)}.",
            )
        _joined(node, known, "what comes there", field, name)
        if known.nullable and not field.nullable:
            raise InvalidConfig(
                f"The field {field.name!r} may be null, and {name} of {node!r} does not take null.",
                "Put a transform before it that fills it in.",
            )


class Fit:
    """Takes the columns of one signature to those of another that has some of its fields."""

    def __init__(self, given: Signature, wanted: Signature) -> None:
        self._numbers = _places(given.numeric, wanted.numeric)
        self._texts = _places(given.textual, wanted.textual)
        self._tensors = [field.name for field in wanted.tensors]
        same = len(self._tensors) == len(given.tensors)
        self._is_same = same and self._numbers is None and self._texts is None

    def columns(self, columns: Columns) -> Columns:
        """Give the wanted columns; arrays are shared where they are the same."""
        if self._is_same:
            return columns
        return Columns(
            _chosen(columns.numbers, self._numbers),
            _chosen(columns.texts, self._texts),
            {name: columns.tensors[name] for name in self._tensors},
        )

    def batch(self, batch: Batch) -> Batch:
        """Give the batch with the wanted columns."""
        if self._is_same:
            return batch
        return Batch(self.columns(batch.columns), batch.ids, batch.entities)


class AlignedNode:
    """A node below another: takes the parent's columns and answers in the parent's labels."""

    def __init__(self, node: Node, parent: Signature) -> None:
        self._node = node
        self._fit = Fit(parent, node.signature)
        self._order = _order(parent.output, node.signature.output)

    def answer(self, batch: Batch) -> NodeAnswers:
        """Answer a batch with the columns of the parent."""
        answered = self._node.answer(self._fit.batch(batch))
        if self._order is None:
            return answered
        outputs = _ordered(answered.outputs, self._order)
        return msgspec.structs.replace(answered, outputs=outputs)


def _ordered(outputs: Outputs, order: NDArray[np.intp]) -> Outputs:
    assert outputs.choices is not None
    places = np.argsort(order).astype(np.int64)
    shares = outputs.probabilities
    return Outputs(
        choices=places[outputs.choices],
        probabilities=None if shares is None else np.ascontiguousarray(shares[:, order]),
    )


def _joined(node: str, one: Field, first: str, other: Field, second: str) -> Field:
    kind = one.kind if one.kind == other.kind else _NARROWER.get(frozenset((one.kind, other.kind)))
    alike = one.dtype == other.dtype and one.shape == other.shape
    units = {one.unit, other.unit} - {None}
    if kind is None or not alike or len(units) > 1:
        raise InvalidConfig(
            f"Below {node!r}, the field {one.name!r} is {_kind(one)} to {first} "
            f"and {_kind(other)} to {second}.",
            "Put a transform before one of them, or rename the field.",
        )
    return Field(
        name=one.name,
        kind=kind,
        nullable=one.nullable and other.nullable,
        unit=one.unit or other.unit,
        bounds=_hull(one, other),
        levels=_all_levels(one, other),
        dtype=one.dtype,
        shape=one.shape,
    )


def _hull(one: Field, other: Field) -> tuple[float, float] | None:
    if one.bounds is None or other.bounds is None:
        return one.bounds or other.bounds
    return min(one.bounds[0], other.bounds[0]), max(one.bounds[1], other.bounds[1])


def _all_levels(one: Field, other: Field) -> tuple[str, ...] | None:
    if one.levels is None or other.levels is None:
        return one.levels or other.levels
    return tuple(sorted({*one.levels, *other.levels}))


def _places(given: tuple[Field, ...], wanted: tuple[Field, ...]) -> NDArray[np.intp] | None:
    """Where the wanted columns stand among the given; None when they are the same."""
    names = [field.name for field in given]
    places = [names.index(field.name) for field in wanted]
    return None if places == list(range(len(names))) else np.array(places, dtype=np.intp)


def _chosen(matrix: NDArray[Any], places: NDArray[np.intp] | None) -> NDArray[Any]:
    return matrix if places is None else np.ascontiguousarray(matrix[:, places])


def _order(parent: Output, child: Output) -> NDArray[np.intp] | None:
    """For each label of the parent, its place among the child's; None when they are the same."""
    if parent.labels is None or child.labels is None or parent.labels == child.labels:
        return None
    return np.array([child.labels.index(label) for label in parent.labels], dtype=np.intp)


def _terms(output: Output) -> tuple[Any, ...]:
    """What two outputs must have in common, whatever the order of their labels."""
    labels = frozenset((type(label), label) for label in output.labels or ())
    return output.task, labels, output.dtype, output.shape


def _said(output: Output) -> str:
    if output.shape is not None:
        return f"{output.task} of {output.dtype} {list(output.shape)}"
    return f"{output.task} {list(output.labels)}" if output.labels else output.task


def _kind(field: Field) -> str:
    shape = f" of {field.dtype} {list(field.shape or ())}" if field.kind == "tensor" else ""
    return f"{field.kind}{shape}" + (f" in {field.unit}" if field.unit else "")
