"""
The trees of LightGBM, XGBoost and CatBoost, read from what the libraries themselves dump.

LightGBM compares in float64 (at most, left), XGBoost in float32 (less, left), CatBoost
in float32 (above, right). XGBoost also adds up in float32, and we in float64: the last
digits differ, within the tolerance that the compiled form is held to.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.boosters import Boosted, library_of
from clewline.model.compile.ensemble import Ensemble, Link, Member
from clewline.model.compile.form import NotLowered
from clewline.model.compile.tree import Tree, constant, simplified

ZERO = float(np.float32(1e-35))
"""What LightGBM takes for zero, on both sides."""

MOST_NODES = 4_000_000


def boosted_ensemble(model: Any, *, from_arrow: bool = False) -> Ensemble:
    """
    Take a booster apart.

    Args:
        model: A booster, or an estimator around one.
        from_arrow: It is given Arrow or Polars tables, in which LightGBM compares tiny
            numbers as they are; in others it takes them for zero.

    Raises:
        NotLowered: It does more than compare fields and add up leaves.
    """
    library = library_of(model)
    assert library is not None
    bare = model.booster if isinstance(model, Boosted) else _inside(model)
    if library == "lightgbm":
        return _lightgbm(bare, float if from_arrow else _outside_zero)
    return _xgboost(bare) if library == "xgboost" else _catboost(bare)


def booster_of(model: Any) -> Any:
    """Give the bare booster, as far as it is used to answer."""
    bare = model.booster if isinstance(model, Boosted) else _inside(model)
    best = bare.attributes().get("best_iteration") if library_of(model) == "xgboost" else None
    return bare if best is None else bare[: int(best) + 1]


def _inside(model: Any) -> Any:
    match library_of(model):
        case "lightgbm":
            return getattr(model, "booster_", model)
        case "xgboost":
            return model.get_booster() if hasattr(model, "get_booster") else model
        case _:
            return model


class _Members:
    """Sets of categories that splits ask for; each becomes a column of its own."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._places: dict[Member, int] = {}

    def place(self, column: int, codes: frozenset[int], *, left: bool) -> int:
        """Give the column that is at most 0.5 where a row's category goes left."""
        member = Member(column, codes, left)
        return self._places.setdefault(member, self._width + len(self._places))

    @property
    def all(self) -> tuple[Member, ...]:
        return tuple(self._places)


class _Nodes:
    """Nodes of one tree under construction, parents before their children."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []

    def add(self) -> int:
        self.rows.append([0, 0.0, 0, 0, True, False, 0.0, 0.0])
        return len(self.rows) - 1

    def tree(self) -> Tree:
        feature, threshold, left, right, leaf, nan_left, weight, value = zip(
            *self.rows, strict=True
        )
        return Tree(
            feature=np.array(feature, np.int64),
            threshold=np.array(threshold, np.float64),
            left=np.array(left, np.int64),
            right=np.array(right, np.int64),
            leaf=np.array(leaf, np.bool_),
            nan_left=np.array(nan_left, np.bool_),
            weight=np.array(weight, np.float64),
            value=np.array(value, np.float64),
        )


# ── LightGBM ────────────────────────────────────────────────────────────────


def _lightgbm(booster: Any, moved: Callable[[float], float]) -> Ensemble:
    dump = booster.dump_model()
    if dump["average_output"]:
        raise NotLowered("a random forest of LightGBM has no lowering")
    words = str(dump.get("objective", "")).split()
    link = _LIGHTGBM_LINKS.get(words[0] if words else "")
    if link is None or "sqrt" in words:
        raise NotLowered(f"LightGBM with the objective {' '.join(words)!r} has no lowering")
    told = dict(word.split(":") for word in words[1:] if ":" in word)
    scale = float(told.get("sigmoid", 1.0)) if link == "sigmoid" else 1.0
    members = _Members(dump["max_feature_idx"] + 1)
    targets = dump["num_tree_per_iteration"]
    trees = [
        (index % targets, _lightgbm_tree(tree["tree_structure"], members, scale, moved))
        for index, tree in enumerate(dump["tree_info"])
    ]
    return Ensemble(_bounded(trees), targets, link, float32=False, members=members.all)


def _lightgbm_tree(
    root: dict[str, Any], members: _Members, scale: float, moved: Callable[[float], float]
) -> Tree:
    nodes = _Nodes()
    left = [(root, nodes.add())]
    while left:
        node, place = left.pop()
        if "leaf_value" in node:
            if "leaf_const" in node:
                raise NotLowered("LightGBM's linear trees have no lowering")
            weight = node.get("leaf_count", 0)
            nodes.rows[place][4:] = [True, False, weight, node["leaf_value"] * scale]
            continue
        column, threshold, nan_left = _lightgbm_split(node, members, moved)
        children = [nodes.add(), nodes.add()]
        nodes.rows[place] = [
            column, threshold, *children, False, nan_left, node["internal_count"], 0.0,
        ]  # fmt: skip
        left += zip((node["left_child"], node["right_child"]), children, strict=True)
    return simplified(nodes.tree())


def _lightgbm_split(
    node: dict[str, Any], members: _Members, moved: Callable[[float], float]
) -> tuple[int, float, bool]:
    column, default_left = int(node["split_feature"]), bool(node["default_left"])
    if node["decision_type"] == "==":
        codes = frozenset(int(code) for code in str(node["threshold"]).split("||"))
        return members.place(column, codes, left=True), 0.5, False
    threshold = moved(float(node["threshold"]))
    match node["missing_type"]:
        case "NaN":
            return column, threshold, default_left
        case "None":  # a missing value counts as 0
            return column, threshold, threshold >= 0.0
        case _:  # zeros count as missing
            if (threshold >= ZERO) != default_left:
                raise NotLowered("LightGBM splits that send zeros another way have no lowering")
            return column, threshold, default_left


def _outside_zero(threshold: float) -> float:
    """Move a threshold out of what LightGBM takes for zero: it compares 0.0 in place of those."""
    if -ZERO <= threshold < 0.0:
        return float(np.nextafter(-ZERO, -np.inf))
    return ZERO if 0.0 <= threshold < ZERO else threshold


_LIGHTGBM_LINKS: dict[str, Link] = {
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


# ── XGBoost ─────────────────────────────────────────────────────────────────


def _xgboost(booster: Any) -> Ensemble:
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    boosting, told = learner["gradient_booster"], learner["learner_model_param"]
    if boosting["name"] != "gbtree":
        raise NotLowered(f"XGBoost's {boosting['name']} has no lowering")
    objective = learner["objective"]["name"]
    link = _XGBOOST_LINKS.get(objective)
    if link is None:
        raise NotLowered(f"XGBoost with the objective {objective!r} has no lowering")
    targets = max(int(told["num_class"]), int(told.get("num_target", 1)), 1)
    model = boosting["model"]
    ends = model["iteration_indptr"]
    best = learner["attributes"].get("best_iteration")
    count = ends[-1] if best is None else ends[int(best) + 1]
    members = _Members(int(told["num_feature"]))
    start = _xgboost_start(told["base_score"], link, targets)
    trees = [(target, constant(value)) for target, value in enumerate(start) if value]
    trees += [
        (target, _xgboost_tree(tree, members))
        for target, tree in zip(model["tree_info"][:count], model["trees"], strict=False)
    ]
    return Ensemble(_bounded(trees), targets, link, members=members.all, sparse_zeros_are_null=True)


def _xgboost_start(text: str, link: Link, targets: int) -> list[float]:
    scores = np.array(json.loads(text), dtype=np.float32).reshape(-1).astype(np.float64)
    match link:
        case "sigmoid":
            scores = -np.log(1 / scores - 1)
        case "exp":
            scores = np.log(scores)
    found: list[float] = np.broadcast_to(scores, (targets,)).astype(np.float32).tolist()
    return found


def _xgboost_tree(tree: dict[str, Any], members: _Members) -> Tree:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotLowered("XGBoost's trees with several values a leaf have no lowering")
    left = np.array(tree["left_children"], np.int64)
    leaf = left < 0
    conditions = np.array(tree["split_conditions"], np.float32)
    feature = np.where(leaf, 0, np.array(tree["split_indices"], np.int64))
    below = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    for node, codes in _xgboost_categories(tree):
        feature[node] = members.place(int(feature[node]), codes, left=False)
        below[node] = 0.5
    return simplified(
        Tree(
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


def _xgboost_categories(tree: dict[str, Any]) -> Iterator[tuple[int, frozenset[int]]]:
    """Give the nodes that ask for categories, with those that go right."""
    segments = zip(tree["categories_segments"], tree["categories_sizes"], strict=True)
    for node, (start, size) in zip(tree["categories_nodes"], segments, strict=True):
        yield node, frozenset(tree["categories"][start : start + size])


_XGBOOST_LINKS: dict[str, Link] = {
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


# ── CatBoost ────────────────────────────────────────────────────────────────


def _catboost(model: Any) -> Ensemble:
    dump = _catboost_dump(model)
    if "oblivious_trees" not in dump:
        raise NotLowered("CatBoost's trees that are not symmetric have no lowering")
    loss = str(model.get_all_params().get("loss_function", "RMSE")).partition(":")[0]
    link = _CATBOOST_LINKS.get(loss)
    if link is None:
        raise NotLowered(f"CatBoost with the loss {loss!r} has no lowering")
    floats = dump["features_info"].get("float_features", [])
    places = {feature["feature_index"]: feature for feature in floats}
    scale, bias = dump["scale_and_bias"]
    trees = [(target, constant(value)) for target, value in enumerate(bias) if value]
    for tree in dump["oblivious_trees"]:
        trees += _catboost_trees(tree, places, len(bias), scale)
    return Ensemble(_bounded(trees), len(bias), link)


def _catboost_dump(model: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="clewline-") as folder:
        path = Path(folder, "model.json")
        model.save_model(str(path), format="json")
        dump: dict[str, Any] = json.loads(path.read_bytes())
    return dump


def _catboost_trees(
    tree: dict[str, Any], places: dict[int, Any], targets: int, scale: float
) -> list[tuple[int, Tree]]:
    """Write a symmetric tree, whose levels each ask one question, as plain ones."""
    splits = tree["splits"] or []
    depth = len(splits)
    if any(split["split_type"] != "FloatFeature" for split in splits):
        raise NotLowered("CatBoost's splits on categories are hashes, which have no lowering")
    features = [places[split["float_feature_index"]] for split in splits]
    inner, leaves = 2**depth - 1, 2**depth
    level = np.floor(np.log2(np.arange(1, inner + leaves + 1))).astype(np.int64)
    level = np.minimum(level, max(depth - 1, 0))
    leaf = np.arange(inner + leaves) >= inner
    nodes = np.arange(inner + leaves)
    column = np.array([feature["flat_feature_index"] for feature in features] or [0])[level]
    border = np.array([split["border"] for split in splits] or [0.0], np.float32)[level]
    nan = np.array([f["nan_value_treatment"] != "AsTrue" for f in features] or [True])[level]
    order = _reversed_bits(leaves, depth)
    values = np.array(tree["leaf_values"]).reshape(leaves, targets)[order] * scale
    weights = np.concatenate([np.zeros(inner), np.array(tree["leaf_weights"])[order]])
    for node in range(inner - 1, -1, -1):
        weights[node] = weights[2 * node + 1] + weights[2 * node + 2]
    return [
        (
            target,
            simplified(
                Tree(
                    feature=np.where(leaf, 0, column),
                    threshold=np.where(leaf, 0, border).astype(np.float64),
                    left=np.where(leaf, 0, 2 * nodes + 1),
                    right=np.where(leaf, 0, 2 * nodes + 2),
                    leaf=leaf.copy(),
                    nan_left=nan & ~leaf,
                    weight=weights,
                    value=np.concatenate([np.zeros(inner), values[:, target]]),
                )
            ),
        )
        for target in range(targets)
    ]


def _reversed_bits(count: int, bits: int) -> NDArray[np.int64]:
    """Give the place of each leaf from the left among the leaf values: the first split is bit 0."""
    places = np.arange(count)
    return sum(
        (((places >> bit) & 1) << (bits - 1 - bit) for bit in range(bits)),
        np.zeros(count, dtype=np.int64),
    )


_CATBOOST_LINKS: dict[str, Link] = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "Poisson": "exp",
    "Tweedie": "exp",
    **dict.fromkeys(("RMSE", "MAE", "Quantile", "Huber", "LogCosh", "MAPE"), "identity"),
}


def _bounded(trees: list[tuple[int, Tree]]) -> list[tuple[int, Tree]]:
    if (nodes := sum(len(tree.leaf) for _, tree in trees)) > MOST_NODES:
        raise NotLowered(f"{nodes:,} nodes are more than {MOST_NODES:,}")
    return trees
