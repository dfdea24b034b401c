"""
Ensembles of trees over raw fields: no imputer, scaler or encoder stands before them.

Measured on a forest of 100 unlimited trees (1.1 million nodes), one thread: ONNX
Runtime keeps the false branch of a node beside it in memory, and walks fastest when
all nodes compare in the same way. So each column stands there twice, as it is and
negated, and each node is turned so that its false branch is the one that more training
rows took: twice the rows a second of the plain order, on the same leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clewline.evaluation.boosters import library_of
from clewline.model.compile.boosted import boosted_ensemble
from clewline.model.compile.ensemble import Ensemble, Member, ensemble_of
from clewline.model.compile.fold import fold
from clewline.model.compile.form import Form, NotLowered, OnnxForm
from clewline.model.compile.graph import (
    Graph,
    code_fields,
    emit_answers,
    encoding_of,
    matrix,
    split_codes,
)
from clewline.model.compile.lowering import in_order, levels_of, lower, tracks_of
from clewline.model.compile.original import Original, final_and_steps
from clewline.model.compile.track import Code, Number, Op, Track
from clewline.model.runtime.encoding import Encoding
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

ML_OPSET = 5  # TreeEnsemble, whose sums and outputs are float64
NAME = "trees on raw fields"
FLOAT32, NEGATED = Op("float32"), Op("mul", -1.0)


def folded(original: Original, train: Columns) -> Iterator[Form]:
    """Give the form with one sum for a binary forest, then the one with two."""
    for exact_ties in (False, True):
        final, steps = final_and_steps(original.model)
        from_arrow = original.layout.frame == "polars" and not steps
        ensemble = _ensemble(final, exact_ties, from_arrow)
        levels = levels_of(original.signature, train, steps)
        tracks = tracks_of(original.signature, original.layout, levels)
        tracks = in_order(tracks, original.signature, [*steps, final][0])
        for step in steps:
            tracks = lower(step, tracks)
        columns = _columns(ensemble, tracks, steps, original, levels)
        classes = getattr(final, "classes_", ())
        yield Folded(original.signature, ensemble, columns, levels, classes)
        if ensemble.link != "mean" or ensemble.targets != 1:
            return


class Folded(OnnxForm):
    """An ensemble over raw fields."""

    name = NAME

    def __init__(
        self,
        signature: Signature,
        ensemble: Ensemble,
        columns: list[Column],
        levels: list[tuple[str, ...]],
        classes: Any,
    ) -> None:
        self._classes = classes
        self._signature, self._ensemble, self._levels = signature, ensemble, levels
        self._nodes = _nodes(ensemble, columns)
        self._tracks = self._nodes.tracks
        self.thresholds = self._nodes.thresholds

    def encoding(self, rows_per_call: int | None = None) -> Encoding:
        """State the inputs."""
        return encoding_of(self._tracks, self._signature, self._levels, rows_per_call)

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Write the ONNX file."""
        graph = Graph(ML_OPSET)
        codes = split_codes(graph, code_fields(self._tracks))
        rows = matrix(graph, self._tracks, self._signature, codes)
        sums = _emit_trees(graph, rows, self._nodes, self._ensemble.targets)
        _emit_answers(graph, sums, self._ensemble, self._signature, self._classes)
        return graph.model(self.encoding(rows_per_call))


@dataclass(frozen=True, slots=True)
class Column:
    """A column that nodes compare: raw and folded, or as it was computed."""

    track: Track
    through: Number | None = None  # what thresholds are carried back through
    nulls: float = np.nan  # what null becomes before it is compared; NaN where it stays null


@dataclass(slots=True)
class Nodes:
    """All inner nodes and leaves, as the operator takes them."""

    tracks: list[Track]
    thresholds: list[tuple[int, float]]
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def extend(self, **arrays: NDArray[Any]) -> None:
        for name, array in arrays.items():
            self.parts.setdefault(name, []).append(array)

    def whole(self, name: str) -> NDArray[Any]:
        return np.concatenate(self.parts[name])


def _ensemble(final: Any, exact_ties: bool, from_arrow: bool) -> Ensemble:
    if library_of(final) is None:
        return ensemble_of(final, exact_ties=exact_ties)
    return boosted_ensemble(final, from_arrow=from_arrow)


def _columns(
    ensemble: Ensemble,
    tracks: list[Track],
    steps: list[Any],
    original: Original,
    levels: list[tuple[str, ...]],
) -> list[Column]:
    """Give the columns that nodes compare, those that none compares as they are."""
    if ensemble.sparse_zeros_are_null and steps and _is_sparse(steps[-1]):
        tracks = [_without_zeros(track) for track in tracks]
    read = {place for _, tree in ensemble.trees for place in tree.feature[~tree.leaf].tolist()}
    columns = [
        _comparable(track, ensemble.float32) if place in read else Column(track)
        for place, track in enumerate(tracks)
    ]
    asked = [_member(one, tracks[one.column], original, levels) for one in ensemble.members]
    return columns + [Column(track) for track in asked]


def _is_sparse(step: Any) -> bool:
    """Whether a fitted transformer gives a sparse matrix."""
    if hasattr(step, "sparse_output_"):
        return bool(step.sparse_output_)
    return bool(getattr(step, "sparse_output", False))


def _without_zeros(track: Track) -> Track:
    if isinstance(track, Code) and track.encoded:
        values = np.where(track.values == 0, np.nan, track.values)
        return Code(track.field, values, track.refused)
    return Number(track.field, (*track.ops, Op("unzero"))) if isinstance(track, Number) else track


def _member(
    member: Member, track: Track, original: Original, levels: list[tuple[str, ...]]
) -> Code:
    """Ask of each code of a text field whether its category is in a set."""
    if not isinstance(track, Code):
        raise NotLowered("splits on categories that are numbers have no lowering")
    codes = track.values if track.encoded else _categories(track, original, levels)
    inside = np.isin(codes, list(member.codes))
    values = np.where(inside == member.left, 0.0, 1.0)
    return Code(track.field, values if member.left else np.where(np.isnan(codes), np.nan, values))


def _categories(
    track: Code, original: Original, levels: list[tuple[str, ...]]
) -> NDArray[np.float64]:
    """Give the number that a library gives to each level of a column of categories, or NaN."""
    field = original.signature.textual[track.field]
    known = original.layout.columns[field.name].levels
    if known is None:
        raise NotLowered(f"the column {field.name!r} is no pandas category or Polars Enum")
    places = {level: float(place) for place, level in enumerate(known)}
    found = [places.get(level, np.nan) for level in levels[track.field]]
    return np.array([*found, np.nan, np.nan])


def _comparable(track: Track, float32: bool) -> Column:
    if isinstance(track, Code):
        if not track.encoded:
            raise NotLowered("a text reaches the trees without an encoder")
        values = track.values.astype(np.float32).astype(np.float64) if float32 else track.values
        return Column(Code(track.field, values, track.refused))
    if not isinstance(track, Number):
        raise NotLowered(track.reason)
    through = Number(track.field, (*track.ops, FLOAT32) if float32 else track.ops)
    if not through.monotone:
        return Column(through)
    null = float(through.apply(np.array([np.nan]))[0])
    return Column(Number(track.field), through, null)


def _nodes(ensemble: Ensemble, columns: list[Column]) -> Nodes:
    trees = [tree for _, tree in ensemble.trees]
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    inner = ~np.concatenate([tree.leaf for tree in trees])
    nan_left = np.concatenate([tree.nan_left for tree in trees])
    raw, splits = threshold.copy(), set()
    for index, column in enumerate(columns):
        mine = inner & (feature == index)
        if column.through is None or not mine.any():
            continue
        distinct, places = np.unique(threshold[mine], return_inverse=True)
        carried = fold(column.through, distinct)
        raw[mine] = carried[places]
        splits |= {(column.through.field, v) for v in carried[np.isfinite(carried)].tolist()}
        if not np.isnan(column.nulls):
            nan_left[mine] = column.nulls <= threshold[mine]
    return _arranged(ensemble, columns, feature, raw, nan_left, sorted(splits))


def _arranged(
    ensemble: Ensemble,
    columns: list[Column],
    feature: NDArray[np.int64],
    threshold: NDArray[np.float64],
    nan_left: NDArray[np.bool_],
    splits: list[tuple[int, float]],
) -> Nodes:
    """Lay the nodes out so that the branch that more rows took lies beside its node."""
    turned = _turned(ensemble)
    inner = ~np.concatenate([tree.leaf for _, tree in ensemble.trees])
    tracks, place = _both_ways(columns, feature[inner], turned[inner])
    nodes = Nodes(tracks, splits)
    at = inners = leaves = 0
    for target, tree in ensemble.trees:
        part = slice(at, at + len(tree.leaf))
        at += len(tree.leaf)
        turn = turned[part]
        column = place[feature[part] + len(columns) * turn]
        above = np.where(turn, -np.nextafter(threshold[part], np.inf), threshold[part])
        if tree.leaf[0]:
            tree, column, above = _with_root(tree)
            turn, nan = np.zeros(3, dtype=bool), np.zeros(3, dtype=bool)
        else:
            nan = nan_left[part] ^ turn
        _extend(nodes, tree, column, above, turn, nan, inners, leaves, target)
        inners += int((~tree.leaf).sum())
        leaves += int(tree.leaf.sum())
    return nodes


def _turned(ensemble: Ensemble) -> NDArray[np.bool_]:
    """Say for each node whether its left branch is the heavier one."""
    return np.concatenate(
        [
            ~tree.leaf & (tree.weight[tree.left] > tree.weight[tree.right])
            for _, tree in ensemble.trees
        ]
    )


def _both_ways(
    columns: list[Column], feature: NDArray[np.int64], turned: NDArray[np.bool_]
) -> tuple[list[Track], NDArray[np.int64]]:
    """
    Give the columns that are read, as they are and negated, and where each one stands.

    Columns of the same raw field and sign are one; numbers stand before tables.
    """
    read = np.unique(feature + len(columns) * turned)
    wanted: dict[Any, tuple[Track, list[int]]] = {}
    for index in read.tolist():
        track = columns[index % len(columns)].track
        signed = _negated(track) if index >= len(columns) else track
        key = index if isinstance(signed, Code) else signed
        wanted.setdefault(key, (signed, []))[1].append(index)
    ordered = sorted(wanted.values(), key=lambda entry: _order(entry[0]))
    place = np.zeros(2 * len(columns), dtype=np.int64)
    for position, (_, indices) in enumerate(ordered):
        place[indices] = position
    return [track for track, _ in ordered], place


def _negated(track: Track) -> Track:
    if isinstance(track, Code):
        return Code(track.field, -track.values, track.refused)
    assert isinstance(track, Number)
    return Number(track.field, (*track.ops, NEGATED))


def _order(track: Track) -> tuple[Any, ...]:
    if isinstance(track, Code):
        return (1, track.field)
    assert isinstance(track, Number)
    return (0, len(track.ops), repr([op.kind for op in track.ops]), track.field)


def _with_root(tree: Any) -> tuple[Any, NDArray[np.int64], NDArray[np.float64]]:
    """A tree of one leaf, under a node both of whose branches end there: the operator wants one."""
    from clewline.model.compile.tree import Tree

    value = np.repeat(tree.value[:1], 3)
    zeros, leaf = np.zeros(3, dtype=np.int64), np.array([False, True, True])
    left, right = np.array([1, 0, 0]), np.array([2, 0, 0])
    root = Tree(zeros, np.zeros(3), left, right, leaf, ~leaf & False, np.zeros(3), value)
    return root, zeros, np.zeros(3)


def _extend(
    nodes: Nodes,
    tree: Any,
    column: NDArray[np.int64],
    threshold: NDArray[np.float64],
    turn: NDArray[np.bool_],
    nan: NDArray[np.bool_],
    inners: int,
    leaves: int,
    target: int,
) -> None:
    inner = ~tree.leaf
    number = np.where(inner, np.cumsum(inner) - 1 + inners, np.cumsum(tree.leaf) - 1 + leaves)
    true = np.where(turn, tree.right, tree.left)[inner]
    false = np.where(turn, tree.left, tree.right)[inner]
    nodes.extend(
        root=np.array([inners]),
        feature=column[inner],
        threshold=threshold[inner],
        nan_true=nan[inner],
        true=number[true],
        true_leaf=tree.leaf[true],
        false=number[false],
        false_leaf=tree.leaf[false],
        weight=tree.value[tree.leaf],
        target=np.full(int(tree.leaf.sum()), target),
    )


def _emit_trees(graph: Graph, rows: str, nodes: Nodes, targets: int) -> str:
    count = len(nodes.whole("feature"))
    node = helper.make_node("TreeEnsemble", [rows], ["sums"], domain="ai.onnx.ml")
    ints = {
        "tree_roots": "root",
        "nodes_featureids": "feature",
        "nodes_truenodeids": "true",
        "nodes_trueleafs": "true_leaf",
        "nodes_falsenodeids": "false",
        "nodes_falseleafs": "false_leaf",
        "leaf_targetids": "target",
    }
    for attribute, name in ints.items():
        _ints(node, attribute, nodes.whole(name))
    if nodes.whole("nan_true").any():
        _ints(node, "nodes_missing_value_tracks_true", nodes.whole("nan_true"))
    tensors = {
        "nodes_splits": nodes.whole("threshold"),
        "nodes_modes": np.zeros(count, dtype=np.uint8),  # all "at most"
        "leaf_weights": nodes.whole("weight"),
    }
    for attribute, values in tensors.items():
        node.attribute.append(helper.make_attribute(attribute, numpy_helper.from_array(values)))
    for attribute, number in (
        ("n_targets", targets),
        ("aggregate_function", 1),
        ("post_transform", 0),
    ):
        node.attribute.append(helper.make_attribute(attribute, number))
    graph.nodes.append(node)
    return "sums"


def _ints(node: Any, name: str, values: NDArray[Any]) -> None:
    attribute = node.attribute.add(name=name, type=7)  # INTS
    attribute.ints.extend(values.astype(np.int64).tolist())


def _emit_answers(
    graph: Graph, sums: str, ensemble: Ensemble, signature: Signature, classes: Any
) -> None:
    if signature.output.task == "regression":
        emit_answers(graph, signature, values=_linked(graph, sums, ensemble))
        return
    one_sum = ensemble.targets == 1
    shares = _two(graph, sums, ensemble) if one_sum else _linked(graph, sums, ensemble)
    if one_sum and ensemble.link != "mean":
        choices = _by_sign(graph, sums, ensemble)
    else:
        scores = shares if ensemble.link == "mean" else sums
        choices = graph.add("ArgMax", scores, axis=1, keepdims=0)
    emit_answers(graph, signature, classes, choices=choices, shares=shares)


def _by_sign(graph: Graph, sums: str, ensemble: Ensemble) -> str:
    compare = "GreaterOrEqual" if ensemble.zero_is_second else "Greater"
    above = graph.add(compare, sums, graph.constant(np.array(0.0)))
    column = graph.add("Cast", above, to=TensorProto.INT64)
    return graph.add("Reshape", column, graph.constant(np.array([-1])))


def _two(graph: Graph, sums: str, ensemble: Ensemble) -> str:
    """Both probabilities from the sum of the second class."""
    if ensemble.link == "mean":
        count = graph.constant(np.array(float(ensemble.count)))
        both = graph.add("Concat", graph.add("Sub", count, sums), sums, axis=1)
        return both if ensemble.count == 1 else graph.add("Div", both, count)
    second = _linked(graph, sums, ensemble)
    first = graph.add("Sub", graph.constant(np.array(1.0)), second)
    return graph.add("Concat", first, second, axis=1)


def _linked(graph: Graph, sums: str, ensemble: Ensemble) -> str:
    match ensemble.link:
        case "mean":
            count = graph.constant(np.array(float(ensemble.count)))
            return sums if ensemble.count == 1 else graph.add("Div", sums, count)
        case "identity":
            return sums
        case "exp":
            return _lane_wise(graph, "Exp", sums)
        case "sigmoid":
            return _lane_wise(graph, "Sigmoid", sums)
        case "half sigmoid":
            doubled = graph.add("Mul", sums, graph.constant(np.array(2.0)))
            return _lane_wise(graph, "Sigmoid", doubled)
        case "softmax":
            return graph.add("Softmax", sums, axis=1)


def _lane_wise(graph: Graph, op: str, sums: str) -> str:
    """
    Apply a function so that a row gives the same bits in every batch.

    ONNX Runtime computes whole vectors by another formula than the rest of the
    array, so each number is repeated until it fills vectors of any width.
    """
    lanes = graph.add("Expand", sums, graph.constant(np.array([1, 8])))
    start, end = (graph.constant(np.array([column])) for column in (0, 1))
    axis = graph.constant(np.array([1]))
    return graph.add("Slice", graph.add(op, lanes), start, end, axis)
