"""Fitted trees as arrays, whoever grew them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tree:
    """
    A binary tree, one entry a node, the root first.

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


def from_cython(tree: Any, values: NDArray[np.float64]) -> Tree:
    """Take a `sklearn.tree._tree.Tree`, with one value a node."""
    leaf = tree.children_left < 0
    return Tree(
        feature=np.where(leaf, 0, tree.feature).astype(np.int64),
        threshold=tree.threshold.astype(np.float64),
        left=np.where(leaf, 0, tree.children_left).astype(np.int64),
        right=np.where(leaf, 0, tree.children_right).astype(np.int64),
        leaf=leaf,
        nan_left=tree.missing_go_to_left.astype(bool),
        weight=tree.weighted_n_node_samples.astype(np.float64),
        value=values.astype(np.float64),
    )


def from_histogram(predictor: Any) -> Tree:
    """Take a `TreePredictor` of histogram gradient boosting, without categorical splits."""
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, 0, nodes["left"]).astype(np.int64),
        right=np.where(leaf, 0, nodes["right"]).astype(np.int64),
        leaf=leaf,
        nan_left=nodes["missing_go_to_left"].astype(bool),
        weight=nodes["count"].astype(np.float64),
        value=nodes["value"].astype(np.float64),
    )


def constant(value: float) -> Tree:
    """Give a tree of one leaf, which adds the same to every row."""
    zero, no = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool)
    number = np.zeros(1)
    return Tree(zero, number, zero, zero, ~no, no, number, np.array([value]))


def simplified(tree: Tree) -> Tree:
    """Join leaves that stand side by side and add the same; every row gets what it got."""
    leaf, value = tree.leaf.copy(), tree.value.copy()
    while True:
        inner = ~leaf
        same = inner & leaf[tree.left] & leaf[tree.right]
        same &= value[tree.left] == value[tree.right]
        if not same.any():
            return _reachable(replace(tree, leaf=leaf, value=value))
        value[same] = value[tree.left[same]]
        leaf |= same


def _reachable(tree: Tree) -> Tree:
    keep = np.zeros(len(tree.leaf), dtype=bool)
    front = np.zeros(1, dtype=np.int64)
    while len(front):
        keep[front] = True
        inner = front[~tree.leaf[front]]
        front = np.concatenate([tree.left[inner], tree.right[inner]])
    place = np.cumsum(keep) - 1
    columns = {name: getattr(tree, name)[keep] for name in Tree.__slots__}
    inner = ~columns["leaf"]
    for name in ("left", "right"):
        columns[name] = np.where(inner, place[columns[name]], 0)
    return Tree(**columns)
