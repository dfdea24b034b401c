"""CatBoost's symmetric trees, from what it saves as JSON. It compares in float32: above, right."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import (
    DecisionTree,
    Link,
    TreeEnsemble,
    constant_tree,
    simplified,
)
from clewline.model.families.boosting import link_of

LINKS: dict[str, Link] = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "Poisson": "exp",
    "Tweedie": "exp",
    **dict.fromkeys(("RMSE", "MAE", "Quantile", "Huber", "LogCosh", "MAPE"), "identity"),
}


def tree_ensemble(model: Any, loss: str) -> TreeEnsemble:
    """
    Read the trees of a model of CatBoost.

    Args:
        model: Fitted.
        loss: The loss function that it was trained with.

    Raises:
        NotConvertible: It does more than compare fields and add up leaves.
    """
    with tempfile.TemporaryDirectory(prefix="clewline-") as folder:
        path = Path(folder, "model.json")
        model.save_model(str(path), format="json")
        dump: dict[str, Any] = json.loads(path.read_bytes())
    if "oblivious_trees" not in dump:
        raise NotConvertible("CatBoost's trees that are not symmetric cannot be converted")
    link: Link = link_of(LINKS, loss, "CatBoost")
    floats = dump["features_info"].get("float_features", [])
    features = {feature["feature_index"]: feature for feature in floats}
    scale, bias = dump["scale_and_bias"]
    trees = [(target, constant_tree(value)) for target, value in enumerate(bias) if value]
    for tree in dump["oblivious_trees"]:
        trees += _trees(tree, features, len(bias), scale)
    return TreeEnsemble(trees, len(bias), link)


def _trees(
    tree: dict[str, Any], known: dict[int, Any], targets: int, scale: float
) -> list[tuple[int, DecisionTree]]:
    """Return a symmetric tree, each level of which asks one question, as one for each target."""
    splits = tree["splits"] or []
    depth = len(splits)
    if any(split["split_type"] != "FloatFeature" for split in splits):
        raise NotConvertible("CatBoost's splits on hashed categories cannot be converted")
    features = [known[split["float_feature_index"]] for split in splits]
    inner, leaves = 2**depth - 1, 2**depth
    nodes = np.arange(inner + leaves)
    level = np.minimum(np.floor(np.log2(nodes + 1)).astype(np.int64), max(depth - 1, 0))
    leaf = nodes >= inner
    column = np.array([feature["flat_feature_index"] for feature in features] or [0])[level]
    border = np.array([split["border"] for split in splits] or [0.0], np.float32)[level]
    nan = np.array([f["nan_value_treatment"] != "AsTrue" for f in features] or [True])[level]
    # The first split is bit 0 of a leaf's number, and the highest in our order from the left.
    number = np.arange(leaves)
    order = sum(
        (((number >> bit) & 1) << (depth - 1 - bit) for bit in range(depth)), np.zeros_like(number)
    )
    values = np.array(tree["leaf_values"]).reshape(leaves, targets)[order] * scale
    weights = np.concatenate([np.zeros(inner), np.array(tree["leaf_weights"])[order]])
    for node in range(inner - 1, -1, -1):
        weights[node] = weights[2 * node + 1] + weights[2 * node + 2]
    return [
        (
            target,
            simplified(
                DecisionTree(
                    feature=np.where(leaf, 0, column),
                    threshold=np.where(leaf, 0, border).astype(np.float64),
                    left=np.where(leaf, 0, 2 * nodes + 1),
                    right=np.where(leaf, 0, 2 * nodes + 2),
                    leaf=leaf,
                    nan_left=nan & ~leaf,
                    weight=weights,
                    value=np.concatenate([np.zeros(inner), values[:, target]]),
                )
            ),
        )
        for target in range(targets)
    ]
