"""Trees as arrays, whichever library grew them, and ensembles that add up their leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.candidate_forms import NotConvertible, TextCodes
from clewline.signature.columns import Columns

MAX_NODES = 4_000_000

Link = Literal["mean", "identity", "exp", "sigmoid", "half sigmoid", "softmax"]

TREES_KEY = "clewline.trees"
"""Name of the entry in the ONNX file's metadata that describes the ensemble."""

TRUE_FRACTIONS = "true_fractions"
"""The initializer that no node reads: the share of training rows that each inner node sends on
its true branch, float64. ONNX Runtime frees it; explanations need it."""


@dataclass(frozen=True, slots=True)
class DecisionTree:
    """
    A binary tree, one entry for each node, the root first.

    A row goes left when its value is at most `threshold`; a missing value goes
    where `nan_left` says. `value` holds what a leaf adds.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    nan_left: NDArray[np.bool_]
    weight: NDArray[np.float64]  # training rows that came by
    value: NDArray[np.float64]


class CategorySet(NamedTuple):
    """
    A set of categories that splits ask for, as a column of its own.

    Its feature number follows those of the columns: at most 0.5 goes left. If the set
    goes left, null goes right with all other categories; if the set goes right, null
    goes where the split says.
    """

    column: int
    codes: frozenset[int]
    left: bool


class CategorySets:
    """The category sets of an ensemble under construction."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._places: dict[CategorySet, int] = {}

    def feature(self, column: int, codes: frozenset[int], *, left: bool) -> int:
        """Return the feature that is at most 0.5 for rows whose category goes left."""
        found = CategorySet(column, codes, left)
        return self._places.setdefault(found, self._width + len(self._places))

    @property
    def all(self) -> tuple[CategorySet, ...]:
        """Every set, in the order of the features."""
        return tuple(self._places)


@dataclass(frozen=True, slots=True)
class TreeEnsemble:
    """Trees, each adding to one target, and how the sums become answers."""

    trees: list[tuple[int, DecisionTree]]
    targets: int
    link: Link
    count: int = 1  # of estimators, which "mean" divides by
    zero_is_second: bool = False  # a raw score of exactly 0 is the second label
    float32: bool = True  # inputs are rounded to float32 before they are compared
    category_sets: tuple[CategorySet, ...] = ()
    sparse_zeros_are_null: bool = False  # a zero that a sparse matrix leaves out counts as null

    def __post_init__(self) -> None:
        if (nodes := sum(len(tree.leaf) for _, tree in self.trees)) > MAX_NODES:
            raise NotConvertible(f"{nodes:,} nodes are more than {MAX_NODES:,}")


class ServedColumn(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """A column of the matrix that the trees of an ONNX file compare."""

    field: str  # that the column is computed from
    group: int = 0  # of a number: columns of one group are the same up to their sign
    negated: bool = False
    raw: bool = False  # the number itself, or its negative


class ServedEnsemble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the nodes of an ONNX file do not say about its trees."""

    columns: tuple[ServedColumn, ...]
    targets: int
    link: Link
    count: int = 1
    classes: tuple[int, ...] = ()  # place of each of the signature's labels among the sums


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTrees:
    """
    The trees of a compiled model as arrays: inner nodes and leaves are numbered apart.

    A row takes the true branch of a node if its column is at most `split`.
    """

    ensemble: ServedEnsemble
    encode: Callable[[Columns], tuple[NDArray[np.float64], NDArray[np.int64]]]
    """Rows as the matrix (n, columns of the ensemble) and the codes (text fields, n)."""
    codes: tuple[TextCodes, ...]  # of each text field that the trees read
    roots: NDArray[np.int64]  # (trees,): an inner node each
    column: NDArray[np.int64]  # (nodes,), as the next seven
    split: NDArray[np.float64]
    nan_true: NDArray[np.bool_]
    true: NDArray[np.int64]
    true_is_leaf: NDArray[np.bool_]
    false: NDArray[np.int64]
    false_is_leaf: NDArray[np.bool_]
    true_fraction: NDArray[np.float64]  # share of training rows, in [0, 1]
    leaf_value: NDArray[np.float64]  # (leaves,)
    leaf_target: NDArray[np.int64]  # (leaves,): the sum that the leaf adds to


def tree_of_rows(rows: Iterable[Iterable[Any]]) -> DecisionTree:
    """Return a tree from one row for each node, its entries in the order of the fields."""
    dtypes = (np.int64, np.float64, np.int64, np.int64, np.bool_, np.bool_, np.float64, np.float64)
    columns = zip(*rows, strict=True)
    return DecisionTree(*(np.array(c, d) for c, d in zip(columns, dtypes, strict=True)))


def tree_of_arrays(leaf: Any, **arrays: Any) -> DecisionTree:
    """Return a tree from an array for each other field; what a leaf has for a split is ignored."""
    for name in ("feature", "left", "right"):
        arrays[name] = np.where(leaf, 0, arrays[name]).astype(np.int64)
    for name in ("threshold", "weight", "value"):
        arrays[name] = np.asarray(arrays[name]).astype(np.float64)
    arrays["nan_left"] = np.asarray(arrays["nan_left"]).astype(np.bool_) & ~leaf
    return merge_equal_leaves(DecisionTree(leaf=leaf, **arrays))


def constant_trees(
    values: Iterable[float], *, zeros: bool = True
) -> list[tuple[int, DecisionTree]]:
    """Return for each target a tree of one leaf, which adds its start value to every row."""
    return [
        (target, tree_of_rows([(0, 0.0, 0, 0, True, False, 0.0, value)]))
        for target, value in enumerate(values)
        if value or zeros
    ]


def merge_equal_leaves(tree: DecisionTree) -> DecisionTree:
    """Merge sibling leaves that add the same; every row still gets what it got."""
    leaf, value = tree.leaf.copy(), tree.value.copy()
    while True:
        same = ~leaf & leaf[tree.left] & leaf[tree.right]
        same &= value[tree.left] == value[tree.right]
        if not same.any():
            break
        value[same] = value[tree.left[same]]
        leaf |= same
    tree = replace(tree, leaf=leaf, value=value)
    keep = np.zeros(len(leaf), dtype=bool)
    front = np.zeros(1, dtype=np.int64)
    while len(front):
        keep[front] = True
        inner = front[~tree.leaf[front]]
        front = np.concatenate([tree.left[inner], tree.right[inner]])
    place = np.cumsum(keep) - 1
    columns = {name: getattr(tree, name)[keep] for name in DecisionTree.__slots__}
    for name in ("left", "right"):
        columns[name] = np.where(columns["leaf"], 0, place[columns[name]])
    return DecisionTree(**columns)
