"""
What passes between the nodes of a graph: fields go down, answers come up.

A route or combination takes the fields of all nodes below it, so one check of a
request serves every arm. `AlignedNode` gives each node its own fields, in its own
order, and puts the labels of its answers into the order of the parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime import Outputs
from clewline.serve.graph.node import Batch, Node, NodeAnswers
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.tree import Tree, title
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature

SYNTHETIC_ROWS = 8

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NARROWER: dict[frozenset[str], Any] = {
    frozenset({"number", "integer"}): "integer",
    frozenset({"category", "text"}): "category",
}
"""Two kinds of one field → the kind with values that both accept."""


# Checks of the nodes below a node


class Side(NamedTuple):
    """A node below another, as the check of its parent sees it."""

    name: str  # of the arm, branch or shadow, or the key under which it stands
    tree: Tree
    signature: Signature

    def __str__(self) -> str:
        return f"{self.name} ({title(self.tree)})"


class NodeFit(NamedTuple):
    """A resolved node and the nodes below it, which must fit together."""

    tree: Tree
    sides: list[Side]  # in the order of the file; without those whose signature is unknown
    is_complete: bool  # whether every signature is known
    models: Mapping[str, Signature]  # of the graph, by `name@number`
    problems: Problems

    @property
    def outputs(self) -> list[Output]:
        """Return what the sides answer."""
        return [side.signature.output for side in self.sides]

    def add(self, code: str, **values: Any) -> None:
        """Add a problem of the node."""
        self.problems.add(code, self.tree["name"], **values)

    def add_unusable(self, side: Side, output: Output) -> None:
        """Add that the node cannot use the answers of a side."""
        node, child = (f"{each['name']} ({title(each)})" for each in (self.tree, side.tree))
        self.add("array_answers", node=node, child=child, answer=_answer_text(output))

    def check_same_answers(self, what: str, *, shares: bool) -> None:
        """
        Check that all sides answer in the terms of the first.

        Args:
            what: What they are, for the error: arms, branches, shadows.
            shares: Whether all or none of them must give probabilities.
        """
        first = self.sides[0]
        for side in self.sides[1:]:
            outputs = (first.signature.output, side.signature.output)
            if len({_answer_terms(output, shares) for output in outputs}) > 1:
                one, other = map(_answer_text, outputs)
                text = sides_text(what, first, side)
                self.add("different_answers", sides=text, one=one, other=other)

    def join_fields(self, what: str) -> tuple[Field, ...]:
        """
        Join the fields of all sides, in the order of their first mention.

        A joined field is nullable if all sides allow null. Bounds and levels are the
        widest of any side, so that a flag means: no side has seen this. A field whose
        kinds, shapes or units do not go together is added as a problem.
        """
        joined: dict[str, tuple[Field, Side]] = {}
        for side in self.sides:
            for field in side.signature.fields:
                known, first = joined.get(field.name, (field, side))
                both = _join(known, field)
                if both is None:
                    one, other = map(_field_text, (known, field))
                    text = sides_text(what, first, side)
                    self.add("different_fields", sides=text, field=field.name, one=one, other=other)
                joined[field.name] = both or known, first
        return tuple(field for field, _ in joined.values())

    def check_fields_within(self, side: Side, available: Iterable[Field], source: str) -> None:
        """Check that a side gets each of its fields from `source`, and null only if it may."""
        known = {field.name: field for field in available}
        for field in side.signature.fields:
            found = known.get(field.name)
            if found is None:
                reason = "has no such field"
            elif _join(found, field) is None:
                reason = f"gives it as {_field_text(found)}"
            elif found.nullable and not field.nullable:
                reason = "may give null"
            else:
                continue
            kind, text = _field_text(field), {"source": source, "reason": reason}
            self.add("missing_field", node=str(side), field=field.name, kind=kind, **text)


def sides_text(what: str, one: Side, other: Side) -> str:
    """Name two nodes below a node for an error: `The arms a (…) and b (…)`."""
    if what == "shadows":
        return f"The answering node ({title(one.tree)}) and the shadow {other}"
    return f"The {what} {one} and {other}"


def _answer_text(output: Output) -> str:
    unit = f" in {output.unit}" if output.unit else ""
    if output.task == "tensor":
        return f"an array of {output.dtype} {list(output.shape or ())}{unit}"
    if output.labels is None:
        return f"a number{unit}"
    alone = "" if output.has_probabilities else " without probabilities"
    return "one of " + ", ".join(repr(label) for label in output.labels) + alone


def _answer_terms(output: Output, shares: bool) -> tuple[Any, ...]:
    """Return what two answers must have in common; the order of their labels is free."""
    if output.labels is None:
        return output.task == "tensor", output.unit, output.dtype, output.shape
    labels = frozenset((type(label), label) for label in output.labels)
    return (labels, output.has_probabilities) if shares else (labels,)


def _join(one: Field, other: Field) -> Field | None:
    kind = one.kind if one.kind == other.kind else _NARROWER.get(frozenset((one.kind, other.kind)))
    units = {one.unit, other.unit} - {None}
    if kind is None or (one.dtype, one.shape) != (other.dtype, other.shape) or len(units) > 1:
        return None
    bounds, levels = one.bounds or other.bounds, one.levels or other.levels
    if one.bounds and other.bounds:
        bounds = min(one.bounds[0], other.bounds[0]), max(one.bounds[1], other.bounds[1])
    if one.levels and other.levels:
        levels = tuple(sorted({*one.levels, *other.levels}))
    return msgspec.structs.replace(
        one,
        kind=kind,
        nullable=one.nullable and other.nullable,
        unit=one.unit or other.unit,
        bounds=bounds,
        levels=levels,
    )


def _field_text(field: Field) -> str:
    shape = f" of {field.dtype} {list(field.shape or ())}" if field.kind == "tensor" else ""
    return f"{field.kind}{shape}" + (f" in {field.unit}" if field.unit else "")


# Columns and labels on their way


class ColumnSelection:
    """Selects the columns of one signature from those of another that has all its fields."""

    def __init__(self, available: Signature, wanted: Signature) -> None:
        self._numbers = _places(available.numeric, wanted.numeric)
        self._texts = _places(available.textual, wanted.textual)
        self._tensors = [field.name for field in wanted.tensors]
        same = len(self._tensors) == len(available.tensors)
        self._is_same = same and self._numbers is None and self._texts is None

    def select(self, columns: Columns) -> Columns:
        """Return the wanted columns; arrays are shared if they are the same."""
        if self._is_same:
            return columns
        return Columns(
            _chosen(columns.numbers, self._numbers),
            _chosen(columns.texts, self._texts),
            {name: columns.tensors[name] for name in self._tensors},
        )


def _places(available: tuple[Field, ...], wanted: tuple[Field, ...]) -> NDArray[np.intp] | None:
    """Find the wanted columns among the given ones; None if they are the same."""
    names = [field.name for field in available]
    places = [names.index(field.name) for field in wanted]
    return None if places == list(range(len(names))) else np.array(places, dtype=np.intp)


def _chosen(matrix: NDArray[Any], places: NDArray[np.intp] | None) -> NDArray[Any]:
    return matrix if places is None else np.ascontiguousarray(matrix[:, places])


class AlignedNode:
    """A node below another: takes the parent's columns, and answers in the parent's labels."""

    def __init__(self, node: Node, parent: Signature) -> None:
        self._node = node
        self._selection = ColumnSelection(parent, node.signature)
        mine, theirs = node.signature.output.labels, parent.output.labels
        self._order: NDArray[np.intp] | None = None  # for each label of the parent, its place here
        if mine is not None and theirs is not None and mine != theirs:
            self._order = np.array([mine.index(label) for label in theirs], dtype=np.intp)

    def answer(self, batch: Batch) -> NodeAnswers:
        """Answer a batch with the columns of the parent."""
        columns = self._selection.select(batch.columns)
        if columns is not batch.columns:
            batch = Batch(columns, batch.ids, batch.entities)
        answers = self._node.answer(batch)
        if self._order is None:
            return answers
        outputs = answers.outputs
        assert outputs.choices is not None
        shares = outputs.probabilities
        ordered = Outputs(
            choices=np.argsort(self._order).astype(np.int64)[outputs.choices],
            probabilities=None if shares is None else np.ascontiguousarray(shares[:, self._order]),
        )
        return msgspec.structs.replace(answers, outputs=ordered)


# Background rows of nodes above others


def joined_background(nodes: list[Node], fields: tuple[Field, ...]) -> bytes:
    """Return rows with the joined fields of all nodes, each value from the first that takes it."""
    if nodes[0].signature.fields == fields:
        return nodes[0].background
    samples = [_rows(node.background) for node in nodes]
    needed = {field.name for field in fields if not field.nullable}
    rows = [
        {name: value for row in reversed(each) for name, value in row.items()}
        for each in zip(*samples, strict=False)
    ]
    return msgspec.json.encode(
        [row for row in rows if not any(bytes(row[name]) == b"null" for name in needed)]
    )


def background_of(fields: tuple[Field, ...], below: Node) -> bytes:
    """
    Return rows of declared fields.

    A field that the node below takes too has its values; values of the others are
    made up from their levels and bounds.
    """
    known = {field.name: field.kind for field in below.signature.fields}
    shared = {field.name for field in fields if known.get(field.name) == field.kind}
    if len(shared) == len(known) == len(fields):
        return below.background
    rows = _rows(below.background) if shared else [{} for _ in range(SYNTHETIC_ROWS)]
    created = [
        {f.name: row[f.name] if f.name in shared else _synthetic(f, place) for f in fields}
        for place, row in enumerate(rows)
    ]
    return msgspec.json.encode(created)


def _rows(background: bytes) -> list[dict[str, msgspec.Raw]]:
    return msgspec.json.decode(background, type=list[dict[str, msgspec.Raw]])


def _synthetic(field: Field, place: int) -> Any:
    """Make up a value for a field, another one in each of a few rows."""
    if field.kind == "boolean":
        return place % 2 == 0
    if field.kind in ("category", "text"):
        levels = field.levels or ("a", "b")
        return levels[place % len(levels)]
    if field.kind == "tensor":
        return np.zeros(field.shape or (), bool if field.dtype == "bool" else int).tolist()
    low, high = field.bounds or (0.0, 1.0)
    value = low + (high - low) * (place % SYNTHETIC_ROWS) / (SYNTHETIC_ROWS - 1)
    if field.kind == "number":
        return value
    if field.kind == "integer":
        return round(value)
    return (_EPOCH + timedelta(microseconds=round(value))).isoformat()
