"""LightGBM's trees, from what it dumps. It compares in float64: at most, left."""

from __future__ import annotations

from typing import Any

import numpy as np

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import (
    CategorySets,
    DecisionTree,
    Link,
    TreeEnsemble,
    simplified,
    tree_of_rows,
)
from clewline.model.families.boosting import link_of

ZERO = float(np.float32(1e-35))
"""The bound below which LightGBM takes a number for zero, on both sides."""

LINKS: dict[str, Link] = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "cross_entropy": "sigmoid",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    **dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"
    ),
}


def tree_ensemble(booster: Any, *, from_arrow: bool) -> TreeEnsemble:
    """
    Read the trees of a `lightgbm.Booster`.

    Args:
        booster: The booster.
        from_arrow: It is given Arrow or Polars tables, in which LightGBM compares tiny
            numbers as they are; in others it takes them for zero.

    Raises:
        NotConvertible: It does more than compare fields and add up leaves.
    """
    dump = booster.dump_model()
    if dump["average_output"]:
        raise NotConvertible("a random forest of LightGBM cannot be converted")
    objective, *settings = str(dump.get("objective", "")).split() or [""]
    link: Link = link_of({} if "sqrt" in settings else LINKS, objective, "LightGBM")
    stated = dict(word.split(":") for word in settings if ":" in word)
    scale = float(stated.get("sigmoid", 1.0)) if link == "sigmoid" else 1.0
    sets = CategorySets(dump["max_feature_idx"] + 1)
    targets = dump["num_tree_per_iteration"]
    trees = [
        (index % targets, _tree(tree["tree_structure"], sets, scale, from_arrow))
        for index, tree in enumerate(dump["tree_info"])
    ]
    return TreeEnsemble(trees, targets, link, float32=False, category_sets=sets.all)


def _tree(root: dict[str, Any], sets: CategorySets, scale: float, from_arrow: bool) -> DecisionTree:
    rows: list[Any] = [None]
    left = [(root, 0)]
    while left:
        node, place = left.pop()
        if "leaf_value" in node:
            if "leaf_const" in node:
                raise NotConvertible("LightGBM's linear trees cannot be converted")
            weight = node.get("leaf_count", 0)
            rows[place] = (0, 0.0, 0, 0, True, False, weight, node["leaf_value"] * scale)
            continue
        feature, threshold, nan_left = _split(node, sets, from_arrow)
        children = (len(rows), len(rows) + 1)
        rows += [None, None]
        rows[place] = (
            feature, threshold, *children, False, nan_left, node["internal_count"], 0.0,
        )  # fmt: skip
        left += zip((node["left_child"], node["right_child"]), children, strict=True)
    return simplified(tree_of_rows(rows))


def _split(node: dict[str, Any], sets: CategorySets, from_arrow: bool) -> tuple[int, float, bool]:
    """Return the feature of a split, its threshold, and whether null goes left."""
    column, default_left = int(node["split_feature"]), bool(node["default_left"])
    if node["decision_type"] == "==":
        codes = frozenset(int(code) for code in str(node["threshold"]).split("||"))
        return sets.feature(column, codes, left=True), 0.5, False
    threshold = float(node["threshold"])
    if not from_arrow:
        threshold = _outside_zero(threshold)
    match node["missing_type"]:
        case "NaN":
            return column, threshold, default_left
        case "None":  # a missing value counts as 0
            return column, threshold, threshold >= 0.0
        case _:  # zeros count as missing
            if (threshold >= ZERO) != default_left:
                raise NotConvertible("LightGBM's other ways for zeros cannot be converted")
            return column, threshold, default_left


def _outside_zero(threshold: float) -> float:
    """Move a threshold out of what LightGBM takes for zero: it compares 0.0 instead of those."""
    if -ZERO <= threshold < 0.0:
        return float(np.nextafter(-ZERO, -np.inf))
    return ZERO if 0.0 <= threshold < ZERO else threshold
