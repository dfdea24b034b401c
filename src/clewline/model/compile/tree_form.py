"""
The form of an ensemble of trees over raw fields: no imputer, scaler or encoder runs before it.

Measured on a forest of 100 unlimited trees (1.1 million nodes), one thread: ONNX
Runtime keeps the false branch of a node beside it in memory, and walks fastest when
all nodes compare in the same way. So each column stands there twice, as it is and
negated, and each node is turned so that its false branch is the one that more training
rows took: twice the rows per second of the plain order, on the same leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clewline.model.compile.candidate_forms import (
    CandidateForm,
    InputEncoding,
    NotConvertible,
    OnnxForm,
)
from clewline.model.compile.compiler import OriginalModel
from clewline.model.compile.lowered_columns import (
    CodeColumn,
    ColumnOp,
    LoweredColumn,
    NumberColumn,
    raw_columns,
    raw_thresholds,
)
from clewline.model.compile.onnx_graph import OnnxGraph, encoding_of
from clewline.model.compile.trees import (
    TREES_KEY,
    TRUE_FRACTIONS,
    CategorySet,
    ServedColumn,
    ServedEnsemble,
    TreeEnsemble,
    tree_of_rows,
)
from clewline.model.runtime.outputs import label_order
from clewline.model_families import family_of, fitted_names_among
from clewline.signature.columns import Columns

ML_OPSET = 5  # TreeEnsemble, with sums and outputs in float64
NAME = "trees on raw fields"
FLOAT32, NEGATED = ColumnOp("float32"), ColumnOp("mul", -1.0)

INT_ATTRIBUTES = {
    "tree_roots": "root",
    "nodes_featureids": "feature",
    "nodes_truenodeids": "true",
    "nodes_trueleafs": "true_leaf",
    "nodes_falsenodeids": "false",
    "nodes_falseleafs": "false_leaf",
    "leaf_targetids": "target",
}
"""Attribute of the operator → name in `TreeNodes.parts`."""


def tree_forms(original: OriginalModel, train: Columns) -> Iterator[CandidateForm]:
    """
    Yield the form of an ensemble: with one sum for a binary forest, then with two.

    Raises:
        NotConvertible: The model is no ensemble of trees, or a step cannot be converted, or the
            installed ONNX Runtime has no trees in float64.
    """
    import onnxruntime

    family = original.family
    final, steps = family.final_and_steps(original.model)
    from_arrow = original.layout.frame == "polars" and not steps
    last: Any = steps[-1] if steps else None
    sparse = bool(getattr(last, "sparse_output_", getattr(last, "sparse_output", False)))
    for exact_ties in (False, True):
        trees_of = (family_of(final) or family).tree_ensemble
        ensemble: TreeEnsemble = trees_of(final, exact_ties=exact_ties, from_arrow=from_arrow)
        if onnxruntime.__version__.startswith("1.20."):
            raise NotConvertible("trees cannot be converted for ONNX Runtime 1.20, but for 1.21")
        columns, levels = raw_columns(
            original.signature,
            original.layout,
            train,
            names=fitted_names_among(
                [*steps, final][0], [f.name for f in original.signature.fields]
            ),
            known_texts=family.known_texts(steps),
        )
        for step in steps:
            columns = family.lower(step, columns)
        yield TreesOnRawFields(original, ensemble, columns, levels, sparse=sparse)
        if ensemble.link != "mean" or ensemble.targets != 1:
            return


class TreesOnRawFields(OnnxForm):
    """
    An ensemble over raw fields.

    Args:
        original: The model.
        ensemble: Its trees.
        columns: What the trees compare, computed from raw fields.
        levels: Of each text field.
        classes: Of a classifier, in the order of the sums.
        sparse: Whether the trees are given a sparse matrix.

    Raises:
        NotConvertible: A column that the trees read cannot be converted.
    """

    name = NAME

    def __init__(
        self,
        original: OriginalModel,
        ensemble: TreeEnsemble,
        columns: list[LoweredColumn],
        levels: list[tuple[str, ...]],
        *,
        sparse: bool = False,
    ) -> None:
        self._signature, self._ensemble, self._levels = original.signature, ensemble, levels
        self._classes = getattr(original.final, "classes_", ())
        if sparse and ensemble.sparse_zeros_are_null:
            columns = [_without_zeros(column) for column in columns]
        read = {place for _, tree in ensemble.trees for place in tree.feature[~tree.leaf].tolist()}
        compared = [
            _compared(column, ensemble.float32) if place in read else ComparedColumn(column)
            for place, column in enumerate(columns)
        ]
        compared += [
            ComparedColumn(_membership(found, columns[found.column], original, levels))
            for found in ensemble.category_sets
        ]
        self._nodes = _nodes(ensemble, compared)
        self.thresholds = self._nodes.thresholds

    def encoding(self, rows_per_call: int | None = None) -> InputEncoding:
        """Return the inputs."""
        return encoding_of(self._nodes.columns, self._signature, self._levels, rows_per_call)

    def model(self, rows_per_call: int | None = None) -> bytes:
        """Return the ONNX file."""
        graph = OnnxGraph(self._signature, self._nodes.columns, ML_OPSET)
        rows = graph.matrix(self._nodes.columns)
        sums = _emit_trees(graph, rows, self._nodes, self._ensemble.targets)
        if self._signature.output.task == "regression":
            graph.answer(values=_linked(graph, sums, self._ensemble))
        else:
            choices, shares = _labels_and_shares(graph, sums, self._ensemble)
            graph.answer(self._classes, choices=choices, probabilities=shares)
        described = msgspec.json.encode(self._described()).decode()
        return graph.model(self.encoding(rows_per_call), {TREES_KEY: described})

    def _described(self) -> ServedEnsemble:
        output = self._signature.output
        numbers, texts = self._signature.numeric, self._signature.textual
        groups: dict[tuple[int, tuple[ColumnOp, ...]], int] = {}
        columns = []
        for column in self._nodes.columns:
            if isinstance(column, CodeColumn):
                columns.append(ServedColumn(texts[column.field].name))
                continue
            assert isinstance(column, NumberColumn)
            negated = column.ops[-1:] == (NEGATED,)
            ops = column.ops[:-1] if negated else column.ops
            group = groups.setdefault((column.field, ops), len(groups))
            name = numbers[column.field].name
            columns.append(ServedColumn(name, group, negated=negated, raw=not ops))
        return ServedEnsemble(
            columns=tuple(columns),
            targets=self._ensemble.targets,
            link=self._ensemble.link,
            count=self._ensemble.count,
            classes=tuple(label_order(self._classes, output)) if output.labels else (),
        )


@dataclass(frozen=True, slots=True)
class ComparedColumn:
    """A column that nodes compare: raw, with thresholds carried back to it, or as computed."""

    column: LoweredColumn
    through: NumberColumn | None = None  # what thresholds are carried back through
    nulls: float = np.nan  # what null becomes before it is compared; NaN if it stays null


@dataclass(slots=True)
class TreeNodes:
    """All inner nodes and leaves, as the operator takes them."""

    columns: list[LoweredColumn]
    thresholds: list[tuple[int, float]]
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def extend(self, **arrays: NDArray[Any]) -> None:
        for name, array in arrays.items():
            self.parts.setdefault(name, []).append(array)

    def whole(self, name: str) -> NDArray[Any]:
        return np.concatenate(self.parts[name])


def _without_zeros(column: LoweredColumn) -> LoweredColumn:
    if isinstance(column, CodeColumn) and column.encoded:
        values = np.where(column.values == 0, np.nan, column.values)
        return CodeColumn(column.field, values, column.refused)
    if isinstance(column, NumberColumn):
        return NumberColumn(column.field, (*column.ops, ColumnOp("unzero")))
    return column


def _membership(
    asked: CategorySet,
    column: LoweredColumn,
    original: OriginalModel,
    levels: list[tuple[str, ...]],
) -> CodeColumn:
    """Return for each code of a text field whether its category is in a set."""
    if not isinstance(column, CodeColumn):
        raise NotConvertible("splits on categories that are numbers cannot be converted")
    codes = column.values
    if not column.encoded:  # the number that a library gives to each level, or NaN
        name = original.signature.textual[column.field].name
        known = original.layout.columns[name].levels
        if known is None:
            raise NotConvertible(f"the column {name!r} is no pandas category or Polars Enum")
        places = {level: float(place) for place, level in enumerate(known)}
        numbers = (places.get(level, np.nan) for level in levels[column.field])
        codes = np.array([*numbers, np.nan, np.nan])
    values = np.where(np.isin(codes, list(asked.codes)) == asked.left, 0.0, 1.0)
    if not asked.left:
        values = np.where(np.isnan(codes), np.nan, values)
    return CodeColumn(column.field, values)


def _compared(column: LoweredColumn, float32: bool) -> ComparedColumn:
    if isinstance(column, CodeColumn):
        if not column.encoded:
            raise NotConvertible("a string reaches the trees without an encoder")
        values = column.values.astype(np.float32).astype(np.float64) if float32 else column.values
        return ComparedColumn(CodeColumn(column.field, values, column.refused))
    if not isinstance(column, NumberColumn):
        raise NotConvertible(column.reason)
    through = NumberColumn(column.field, (*column.ops, FLOAT32) if float32 else column.ops)
    if not through.monotone:
        return ComparedColumn(through)
    null = float(through.apply(np.array([np.nan]))[0])
    return ComparedColumn(NumberColumn(column.field), through, null)


def _nodes(ensemble: TreeEnsemble, columns: list[ComparedColumn]) -> TreeNodes:
    """Carry thresholds to raw fields; lay the branch that more rows took beside its node."""
    trees = [tree for _, tree in ensemble.trees]
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    inner = ~np.concatenate([tree.leaf for tree in trees])
    nan_left = np.concatenate([tree.nan_left for tree in trees])
    raw = threshold.copy()
    splits: set[tuple[int, float]] = set()
    for index, column in enumerate(columns):
        mine = inner & (feature == index)
        if column.through is None or not mine.any():
            continue
        distinct, places = np.unique(threshold[mine], return_inverse=True)
        carried = raw_thresholds(column.through, distinct)
        raw[mine] = carried[places]
        splits |= {(column.through.field, v) for v in carried[np.isfinite(carried)].tolist()}
        if not np.isnan(column.nulls):
            nan_left[mine] = column.nulls <= threshold[mine]
    # A node is turned if its left branch is the heavier one.
    turned = np.concatenate([~t.leaf & (t.weight[t.left] > t.weight[t.right]) for t in trees])
    read, place = _both_signs(columns, feature[inner], turned[inner])
    nodes = TreeNodes(read, sorted(splits))
    at = inners = leaves = 0
    for target, tree in ensemble.trees:
        part = slice(at, at + len(tree.leaf))
        at += len(tree.leaf)
        turn = turned[part]
        which = place[feature[part] + len(columns) * turn]
        above = np.where(turn, -np.nextafter(raw[part], np.inf), raw[part])
        nan_true = nan_left[part] ^ turn
        if tree.leaf[0]:  # the operator wants an inner node: both branches of it end here
            value = tree.value[0]
            leaf = (0, 0.0, 0, 0, True, False, 0.0, value)
            tree = tree_of_rows([(0, 0.0, 1, 2, False, False, 0.0, value), leaf, leaf])
            which, above = np.zeros(3, dtype=np.int64), np.zeros(3)
            turn, nan_true = np.zeros(3, dtype=bool), np.zeros(3, dtype=bool)
        is_inner = ~tree.leaf
        number = np.where(
            is_inner, np.cumsum(is_inner) - 1 + inners, np.cumsum(tree.leaf) - 1 + leaves
        )
        true = np.where(turn, tree.right, tree.left)[is_inner]
        false = np.where(turn, tree.left, tree.right)[is_inner]
        nodes.extend(
            root=np.array([inners]),
            feature=which[is_inner],
            threshold=above[is_inner],
            nan_true=nan_true[is_inner],
            true=number[true],
            true_leaf=tree.leaf[true],
            false=number[false],
            false_leaf=tree.leaf[false],
            true_fraction=_fraction(tree.weight[true], tree.weight[false]),
            weight=tree.value[tree.leaf],
            target=np.full(int(tree.leaf.sum()), target),
        )
        inners += int(is_inner.sum())
        leaves += int(tree.leaf.sum())
    return nodes


def _fraction(weight: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of a branch; a half where no training row came by."""
    total = weight + other
    shares = np.full(len(total), 0.5)
    np.divide(weight, total, out=shares, where=total > 0)
    return shares


def _both_signs(
    columns: list[ComparedColumn], feature: NDArray[np.int64], turned: NDArray[np.bool_]
) -> tuple[list[LoweredColumn], NDArray[np.int64]]:
    """
    Return the columns that are read, as they are and negated, and the place of each one.

    Columns of the same raw field and sign are one; numbers stand before tables.
    """
    read = np.unique(feature + len(columns) * turned)
    wanted: dict[Any, tuple[LoweredColumn, list[int]]] = {}
    for index in read.tolist():
        column = columns[index % len(columns)].column
        signed = column
        if index >= len(columns):
            if isinstance(column, CodeColumn):
                signed = CodeColumn(column.field, -column.values, column.refused)
            elif isinstance(column, NumberColumn):
                signed = NumberColumn(column.field, (*column.ops, NEGATED))
        key = index if isinstance(signed, CodeColumn) else signed
        wanted.setdefault(key, (signed, []))[1].append(index)
    ordered = sorted(wanted.values(), key=lambda entry: _order(entry[0]))
    place = np.zeros(2 * len(columns), dtype=np.int64)
    for position, (_, indices) in enumerate(ordered):
        place[indices] = position
    return [column for column, _ in ordered], place


def _order(column: LoweredColumn) -> tuple[Any, ...]:
    if isinstance(column, CodeColumn):
        return (1, column.field)
    assert isinstance(column, NumberColumn)
    return (0, len(column.ops), repr([op.kind for op in column.ops]), column.field)


def _emit_trees(graph: OnnxGraph, rows: str, nodes: TreeNodes, targets: int) -> str:
    node = helper.make_node(
        "TreeEnsemble",
        [rows],
        ["sums"],
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function=1,
        post_transform=0,
    )
    ints = {name: nodes.whole(part) for name, part in INT_ATTRIBUTES.items()}
    if nodes.whole("nan_true").any():
        ints["nodes_missing_value_tracks_true"] = nodes.whole("nan_true")
    for name, values in ints.items():  # extended at once: make_attribute looks at each number
        attribute = node.attribute.add(name=name, type=7)  # INTS
        attribute.ints.extend(values.astype(np.int64).tolist())
    tensors = {
        "nodes_splits": nodes.whole("threshold"),
        "nodes_modes": np.zeros(len(nodes.whole("feature")), dtype=np.uint8),  # all "at most"
        "leaf_weights": nodes.whole("weight"),
    }
    for name, values in tensors.items():
        node.attribute.append(helper.make_attribute(name, numpy_helper.from_array(values)))
    graph.nodes.append(node)
    fractions = nodes.whole("true_fraction")
    graph.initializers.append(numpy_helper.from_array(fractions, TRUE_FRACTIONS))
    return "sums"


def _labels_and_shares(graph: OnnxGraph, sums: str, ensemble: TreeEnsemble) -> tuple[str, str]:
    """Return the places of the labels, and the probabilities; one sum is of the second class."""
    if ensemble.link == "mean":
        if ensemble.targets == 1:
            first = graph.add("Sub", graph.constant(np.array(float(ensemble.count))), sums)
            sums = graph.add("Concat", first, sums, axis=1)
        shares = _linked(graph, sums, ensemble)
        return graph.add("ArgMax", shares, axis=1, keepdims=0), shares
    shares = _linked(graph, sums, ensemble)
    if ensemble.targets > 1:
        return graph.add("ArgMax", sums, axis=1, keepdims=0), shares
    first = graph.add("Sub", graph.constant(np.array(1.0)), shares)
    shares = graph.add("Concat", first, shares, axis=1)
    compare = "GreaterOrEqual" if ensemble.zero_is_second else "Greater"
    above = graph.add(compare, sums, graph.constant(np.array(0.0)))
    column = graph.cast(above, TensorProto.INT64)
    return graph.add("Reshape", column, graph.constant(np.array([-1]))), shares


def _linked(graph: OnnxGraph, sums: str, ensemble: TreeEnsemble) -> str:
    match ensemble.link:
        case "mean" if ensemble.count > 1:
            return graph.add("Div", sums, graph.constant(np.array(float(ensemble.count))))
        case "exp":
            return graph.lane_wise("Exp", sums)
        case "sigmoid":
            return graph.lane_wise("Sigmoid", sums)
        case "half sigmoid":
            doubled = graph.add("Mul", sums, graph.constant(np.array(2.0)))
            return graph.lane_wise("Sigmoid", doubled)
        case "softmax":
            return graph.add("Softmax", sums, axis=1)
    return sums
