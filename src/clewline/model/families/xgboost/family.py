"""
The adapter of XGBoost.

XGBoost compares in float32: less than the threshold, left. It also adds up in float32, and
we in float64: the last digits differ, within the tolerance that every form is verified to.
"""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import (
    CategorySets,
    DecisionTree,
    Link,
    TreeEnsemble,
    constant_trees,
    tree_of_arrays,
)
from clewline.model.families.boosting import BoosterEstimator, BoosterFamily
from clewline.model.families.family import FileFields, json_object
from clewline.signature.field import Field


class XGBoostEstimator(BoosterEstimator):
    """A `xgboost.Booster` as an estimator."""

    model_family = "xgboost"

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        return int(self.booster.num_features())

    def raw(self, table: Any) -> Any:
        """Answer a table as the library does."""
        import xgboost

        missing = math.nan if self.missing is None else self.missing
        matrix = xgboost.DMatrix(table, missing=missing, enable_categorical=True, nthread=1)
        return self.booster.predict(matrix)


class XGBoostFamily(BoosterFamily):
    """XGBoost: its UBJSON and JSON formats, its trees."""

    name = "xgboost"
    title = "XGBoost"
    packages = ("xgboost",)
    distributions = ("xgboost-cpu",)
    file_name = "model.ubj"
    file_endings = (".ubj", ".json")
    error_class = ("xgboost.core", "XGBoostError")
    bare = (("xgboost.core", "Booster"),)
    estimator = XGBoostEstimator
    binary_objectives = ("binary:logistic",)
    multiclass_objectives = ("multi:softprob",)
    unsupported_objectives = (
        *("rank:map", "rank:ndcg", "rank:pairwise"),
        *("binary:hinge", "multi:softmax"),
    )
    links: ClassVar[dict[str, Link]] = {
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
    storable_types = (
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRFClassifier",
        "xgboost.sklearn.XGBRFRegressor",
        "xgboost.sklearn.XGBRegressor",
    )

    def recognizes(self, data: bytes) -> bool:
        """Say whether bytes begin as UBJSON (the type and length of a key), or are its JSON."""
        if data.startswith(b"{L") or (data[:1] == b"{" and data[2:3] == b"\x00"):
            return True
        return "learner" in json_object(data)

    def booster_of(self, model: Any) -> Any:
        """Return the bare booster of an estimator, up to the best iteration."""
        inner = model.booster if isinstance(model, BoosterEstimator) else model
        bare = inner.get_booster() if hasattr(inner, "get_booster") else inner
        best = bare.attributes().get("best_iteration")
        return bare if best is None else bare[: int(best) + 1]

    def missing_of(self, model: Any) -> float | None:
        """Return the number that counts as null besides NaN: the setting `missing`."""
        missing = getattr(model, "missing", None)
        return None if missing is None or math.isnan(missing) else float(missing)

    def wrap(self, booster: Any) -> XGBoostEstimator:
        """Return a bare booster as an estimator."""
        learner = json.loads(booster.save_config())["learner"]
        count = int(learner["learner_model_param"]["num_class"])
        classes = self.classes_of(learner["objective"]["name"], count)
        return XGBoostEstimator(booster, classes, booster.feature_names)

    def column_importances(self, model: Any) -> tuple[str, NDArray[np.float64]]:
        """Return the total gain of each column."""
        booster = self.booster_of(model)
        gains = booster.get_score(importance_type="total_gain")
        names = booster.feature_names or [f"f{at}" for at in range(booster.num_features())]
        return "gain", np.array([gains.get(name, 0.0) for name in names], dtype=np.float64)

    def parse(self, library: Any, data: bytes) -> Any:
        """Read UBJSON or JSON."""
        booster = library.Booster({"nthread": 1})
        booster.load_model(bytearray(data))
        return booster

    def serialize(self, booster: Any) -> bytes:
        """Write UBJSON."""
        return bytes(booster.save_raw("ubj"))

    def known_categories(self, booster: Any, columns: list[str]) -> dict[str, list[Any]]:
        """Return the categories that it keeps; before XGBoost 3.1 it knows their numbers only."""
        if not hasattr(booster, "get_categories"):
            return {}
        found = booster.get_categories(export_to_arrow=True).to_arrow()
        return {name: list(known.to_pylist()) for name, known in found if known is not None}

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """Read the trees; as `Family.tree_ensemble`."""
        if (missing := self.missing_of(model)) is not None:
            raise NotConvertible(f"XGBoost with missing={missing:g} cannot be converted")
        learner = json.loads(bytes(self.booster_of(model).save_raw("json")))["learner"]
        boosting, stated = learner["gradient_booster"], learner["learner_model_param"]
        if boosting["name"] != "gbtree":
            raise NotConvertible(f"XGBoost's {boosting['name']} cannot be converted")
        if any(weight != 1 for weight in boosting["model"].get("weight_drop", ())):
            raise NotConvertible("XGBoost's trees with dropout cannot be converted")
        link = self.link_of(learner["objective"]["name"])
        targets = max(int(stated["num_class"]), int(stated.get("num_target", 1)), 1)
        scores = np.array(json.loads(stated["base_score"]), np.float32).reshape(-1)
        scores = scores.astype(np.float64)
        if link == "sigmoid":
            scores = -np.log(1 / scores - 1)
        elif link == "exp":
            scores = np.log(scores)
        start = np.broadcast_to(scores, (targets,)).astype(np.float32).tolist()
        trees, sets = constant_trees(start, zeros=False), CategorySets(int(stated["num_feature"]))
        pairs = zip(boosting["model"]["tree_info"], boosting["model"]["trees"], strict=True)
        trees += [(target, _tree(tree, sets)) for target, tree in pairs]
        return TreeEnsemble(
            trees, targets, link, category_sets=sets.all, sparse_zeros_are_null=True
        )

    def file_fields(self, model: Any, name: str) -> FileFields:
        """Return the fields by the types that the booster was trained with."""
        types = model.booster.feature_types
        if not types or any(each == "c" for each in types):
            return FileFields()
        kinds: dict[str, Any] = {"int": "integer", "i": "boolean"}
        pairs = zip(model.feature_names_in_, types, strict=True)
        return FileFields(
            tuple(Field(name=n, kind=kinds.get(t, "number"), nullable=True) for n, t in pairs)
        )


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
    return tree_of_arrays(
        leaf,
        feature=feature,
        threshold=below,
        left=left,
        right=tree["right_children"],
        nan_left=tree["default_left"],
        weight=tree["sum_hessian"],
        value=conditions,
    )
