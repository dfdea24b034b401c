"""
XGBoost's trees, from what it saves as JSON. It compares in float32: less, left.

XGBoost also adds up in float32, and we in float64: the last digits differ, within the
tolerance that every form is verified to.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import (
    CategorySets,
    DecisionTree,
    Link,
    TreeEnsemble,
    constant_tree,
    simplified,
)
from clewline.model.families.boosting import link_of

LINKS: dict[str, Link] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    **dict.fromkeys(
        ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror"),
        "identity",
    ),
}


def tree_ensemble(booster: Any, *, missing: float | None) -> TreeEnsemble:
    """
    Read the trees of a `xgboost.Booster`.

    Args:
        booster: The booster, cut at its best iteration.
        missing: The number that its estimator takes for null besides NaN.

    Raises:
        NotConvertible: It does more than compare fields and add up leaves.
    """
    if missing is not None:
        raise NotConvertible(f"XGBoost with missing={missing:g} cannot be converted")
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    boosting, stated = learner["gradient_booster"], learner["learner_model_param"]
    if boosting["name"] != "gbtree":
        raise NotConvertible(f"XGBoost's {boosting['name']} cannot be converted")
    link: Link = link_of(LINKS, learner["objective"]["name"], "XGBoost")
    targets = max(int(stated["num_class"]), int(stated.get("num_target", 1)), 1)
    model = boosting["model"]
    sets = CategorySets(int(stated["num_feature"]))
    start = _start(stated["base_score"], link, targets)
    trees = [(target, constant_tree(value)) for target, value in enumerate(start) if value]
    trees += [
        (target, _tree(tree, sets))
        for target, tree in zip(model["tree_info"], model["trees"], strict=True)
    ]
    return TreeEnsemble(trees, targets, link, category_sets=sets.all, sparse_zeros_are_null=True)


def _start(text: str, link: Link, targets: int) -> list[float]:
    scores = np.array(json.loads(text), dtype=np.float32).reshape(-1).astype(np.float64)
    if link == "sigmoid":
        scores = -np.log(1 / scores - 1)
    elif link == "exp":
        scores = np.log(scores)
    found: list[float] = np.broadcast_to(scores, (targets,)).astype(np.float32).tolist()
    return found


def _tree(tree: dict[str, Any], sets: CategorySets) -> DecisionTree:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotConvertible("XGBoost's trees with several values in a leaf cannot be converted")
    left = np.array(tree["left_children"], np.int64)
    leaf = left < 0
    conditions = np.array(tree["split_conditions"], np.float32)
    feature = np.where(leaf, 0, np.array(tree["split_indices"], np.int64))
    below = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    # Splits on categories list those that go right.
    segments = zip(tree["categories_segments"], tree["categories_sizes"], strict=True)
    for node, (start, size) in zip(tree["categories_nodes"], segments, strict=True):
        codes = frozenset(tree["categories"][start : start + size])
        feature[node] = sets.feature(int(feature[node]), codes, left=False)
        below[node] = 0.5
    return simplified(
        DecisionTree(
            feature=feature,
            threshold=below,
            left=np.where(leaf, 0, left),
            right=np.where(leaf, 0, np.array(tree["right_children"], np.int64)),
            leaf=leaf,
            nan_left=np.array(tree["default_left"], np.bool_) & ~leaf,
            weight=np.array(tree["sum_hessian"], np.float64),
            value=np.where(leaf, conditions, 0).astype(np.float64),
        )
    )
