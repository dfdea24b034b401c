"""
The adapter of LightGBM.

LightGBM compares in float64: at most the threshold, left.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import (
    CategorySets,
    DecisionTree,
    Link,
    TreeEnsemble,
    merge_equal_leaves,
    tree_of_rows,
)
from clewline.model.families.boosting import BoosterEstimator, BoosterFamily
from clewline.model.families.family import FileFields
from clewline.signature.field import Field

ZERO = float(np.float32(1e-35))
"""The bound below which LightGBM takes a number for zero, on both sides."""


class LightGBMEstimator(BoosterEstimator):
    """A `lightgbm.Booster` as an estimator."""

    model_family = "lightgbm"

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        return int(self.booster.num_feature())

    def raw(self, table: Any) -> Any:
        """Answer a table as the library does."""
        return self.booster.predict(table, num_threads=1)

    def labels_of(self, shares: NDArray[np.float64]) -> NDArray[Any]:
        """Return the labels that the library chooses: the most probable, the first of equals."""
        assert self.classes_ is not None
        return np.asarray(self.classes_[shares.argmax(axis=1)])


class LightGBMFamily(BoosterFamily):
    """LightGBM: its text format, its trees."""

    name = "lightgbm"
    title = "LightGBM"
    packages = ("lightgbm",)
    distributions = ("lightgbm",)
    file_name = "model.txt"
    file_endings = (".txt",)
    error_class = ("lightgbm.basic", "LightGBMError")
    bare = (("lightgbm.basic", "Booster"),)
    estimator = LightGBMEstimator
    binary_objectives = ("binary",)
    multiclass_objectives = ("multiclass", "multiclassova")
    unsupported_objectives = ("lambdarank", "rank_xendcg", "custom")
    links: ClassVar[dict[str, Link]] = {
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
    storable_types = (
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
    )

    def recognizes(self, data: bytes) -> bool:
        """Say whether bytes begin as its text format does."""
        return data.startswith((b"tree\n", b"tree\r\n"))

    def booster_of(self, model: Any) -> Any:
        """Return the bare booster of an estimator."""
        inner = model.booster if isinstance(model, BoosterEstimator) else model
        return getattr(inner, "booster_", inner)

    def wrap(self, booster: Any) -> LightGBMEstimator:
        """Return a bare booster as an estimator."""
        dump = booster.dump_model(num_iteration=1)
        objective = str(dump.get("objective", "")).partition(" ")[0]
        classes = self.classes_of(objective, dump["num_class"])
        return LightGBMEstimator(booster, classes, _column_names(booster))

    def fitted_names(self, model: Any) -> list[str] | None:
        """Ask the booster: estimators before 4.5 do not say, 4.5 and 4.6 name arrays' columns."""
        booster = self.booster_of(model)
        return _column_names(booster) if hasattr(booster, "feature_name") else None

    def column_importances(self, model: Any) -> tuple[str, NDArray[np.float64]]:
        """Return the total gain of each column."""
        found = self.booster_of(model).feature_importance("gain")
        return "gain", np.asarray(found, dtype=np.float64)

    def parse(self, library: Any, data: bytes) -> Any:
        """Read the text format."""
        if not self.recognizes(data):
            raise ValueError("it does not begin as a model does")
        return library.Booster(model_str=data.decode())

    def serialize(self, booster: Any) -> bytes:
        """Write the text format."""
        text: str = booster.model_to_string()
        return text.encode()

    def known_categories(self, booster: Any, columns: list[str]) -> dict[str, list[Any]]:
        """Return the categories of pandas columns, which it keeps without their names."""
        known = booster.pandas_categorical or []
        return dict(zip(columns, known, strict=True)) if len(known) == len(columns) else {}

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """Read the trees; from Arrow tables LightGBM compares tiny numbers as they are."""
        dump = self.booster_of(model).dump_model()
        if dump["average_output"]:
            raise NotConvertible("a random forest of LightGBM cannot be converted")
        objective, *settings = str(dump.get("objective", "")).split() or [""]
        link = self.link_of(f"{objective} sqrt" if "sqrt" in settings else objective)
        stated = dict(word.split(":") for word in settings if ":" in word)
        scale = float(stated.get("sigmoid", 1.0)) if link == "sigmoid" else 1.0
        sets = CategorySets(dump["max_feature_idx"] + 1)
        targets = dump["num_tree_per_iteration"]
        trees = [
            (index % targets, _tree(tree["tree_structure"], sets, scale, from_arrow))
            for index, tree in enumerate(dump["tree_info"])
        ]
        return TreeEnsemble(trees, targets, link, float32=False, category_sets=sets.all)

    def file_fields(self, model: Any, name: str) -> FileFields:
        """Return the fields with their bounds, and the levels of pandas categories."""
        names = list(model.feature_names_in_)
        infos = model.booster.dump_model(num_iteration=1)["feature_infos"]
        categories = list(model.booster.pandas_categorical or [])
        listed = [each for each in names if infos.get(each, {}).get("values")]
        if len(categories) != len(listed):
            return FileFields()
        if any(not isinstance(level, str) for levels in categories for level in levels):
            raise InvalidInput(
                f"{name} has categories that are not strings: {listed}.",
                "Train with categories of strings, or with numbers.",
            )
        levels = {each: tuple(found) for each, found in zip(listed, categories, strict=True)}
        fields = []
        for each in names:
            stated: dict[str, Any] = {"kind": "number"}
            low, high = (infos.get(each, {}).get(f"{end}_value") for end in ("min", "max"))
            if each in levels:
                stated = {"kind": "category", "levels": tuple(sorted(levels[each]))}
            elif low is not None and high is not None and low < high:
                stated["bounds"] = (float(low), float(high))
            fields.append(Field(name=each, nullable=True, **stated))
        return FileFields(tuple(fields), levels)


def _column_names(booster: Any) -> list[str] | None:
    names = [str(name) for name in booster.feature_name()]
    return None if names == [f"Column_{place}" for place in range(len(names))] else names


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
    return merge_equal_leaves(tree_of_rows(rows))


def _split(node: dict[str, Any], sets: CategorySets, from_arrow: bool) -> tuple[int, float, bool]:
    """Return the feature of a split, its threshold, and whether null goes left."""
    column, default_left = int(node["split_feature"]), bool(node["default_left"])
    if node["decision_type"] == "==":
        codes = frozenset(int(code) for code in str(node["threshold"]).split("||"))
        return sets.feature(column, codes, left=True), 0.5, False
    threshold = float(node["threshold"])
    if not from_arrow:
        # LightGBM takes what is nearer to zero than ZERO for zero, and compares 0.0 instead.
        if -ZERO <= threshold < 0.0:
            threshold = float(np.nextafter(-ZERO, -np.inf))
        elif 0.0 <= threshold < ZERO:
            threshold = ZERO
    match node["missing_type"]:
        case "NaN":
            return column, threshold, default_left
        case "None":  # a missing value counts as 0
            return column, threshold, threshold >= 0.0
        case _:  # zeros count as missing
            if (threshold >= ZERO) != default_left:
                raise NotConvertible("LightGBM's other ways for zeros cannot be converted")
            return column, threshold, default_left
