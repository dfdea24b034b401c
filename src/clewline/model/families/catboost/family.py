"""
The adapter of CatBoost.

CatBoost compares in float32: above the border, right.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clewline.errors import NotSupported
from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.trees import (
    DecisionTree,
    Link,
    TreeEnsemble,
    constant_trees,
    tree_of_arrays,
)
from clewline.model.families.boosting import BoosterEstimator, BoosterFamily
from clewline.model.families.family import FileFields, json_object
from clewline.signature.field import Field

VOLATILE_METADATA = ("model_guid", "train_finish_time")
"""Metadata of a model that differs each time the same one is trained."""


class CatBoostEstimator(BoosterEstimator):
    """A model of CatBoost as an estimator: its own ones answer in other shapes."""

    model_family = "catboost"

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        return len(self.booster.feature_names_)

    def raw(self, table: Any) -> Any:
        """Answer a table as the library does."""
        kind = "RawFormulaVal" if self.classes_ is None else "Probability"
        if self.classes_ is None and loss_of(self.booster) in ("Poisson", "Tweedie"):
            kind = "Exponent"
        return self.booster.predict(table, prediction_type=kind, thread_count=1)


class CatBoostFamily(BoosterFamily):
    """CatBoost: its binary and JSON formats, its symmetric trees."""

    name = "catboost"
    title = "CatBoost"
    packages = ("catboost",)
    distributions = ("catboost",)
    file_name = "model.cbm"
    file_endings = (".cbm", ".json")
    error_class = ("catboost", "CatBoostError")
    bare = (("catboost.core", "CatBoost"),)
    estimator = CatBoostEstimator
    takes_labels = False  # its models keep the labels that they were trained with
    unsupported_objectives = ("QueryRMSE", "YetiRank", "PairLogit", "MultiRMSE")
    links: ClassVar[dict[str, Link]] = {
        "Logloss": "sigmoid",
        "CrossEntropy": "sigmoid",
        "MultiClass": "softmax",
        "Poisson": "exp",
        "Tweedie": "exp",
        **dict.fromkeys(("RMSE", "MAE", "Quantile", "Huber", "LogCosh", "MAPE"), "identity"),
    }
    storable_types = (
        "catboost.core.CatBoost",
        "catboost.core.CatBoostClassifier",
        "catboost.core.CatBoostRegressor",
    )

    def recognizes(self, data: bytes) -> bool:
        """Say whether bytes begin as its binary format does, or are its JSON."""
        if data.startswith(b"CBM1"):
            return True
        found = json_object(data)
        return "features_info" in found and ("oblivious_trees" in found or "trees" in found)

    def is_bare(self, model: Any) -> bool:
        """Say whether a model is CatBoost's; its estimators are wrapped too."""
        return not isinstance(model, BoosterEstimator)

    def booster_of(self, model: Any) -> Any:
        """Return the model of CatBoost."""
        return model.booster if isinstance(model, BoosterEstimator) else model

    def wrap(self, booster: Any) -> CatBoostEstimator:
        """Return a model of CatBoost as an estimator."""
        if not booster.is_fitted():
            raise NotSupported(f"The {type(booster).__name__} was not fitted.", "Fit it first.")
        names = [str(name) for name in booster.feature_names_]
        unnamed = names == [str(place) for place in range(len(names))]
        classes = list(booster.classes_) or self.classes_of(loss_of(booster), 0)
        return CatBoostEstimator(booster, classes, None if unnamed else names)

    def column_importances(self, model: Any) -> tuple[str, NDArray[np.float64]]:
        """Return how much the answer changes with each column."""
        found = self.booster_of(model).get_feature_importance(type="PredictionValuesChange")
        return "prediction change", np.asarray(found, dtype=np.float64)

    def parse(self, library: Any, data: bytes) -> Any:
        """Read the binary format, or JSON, which CatBoost reads from files alone."""
        if data.startswith(b"CBM1"):
            return library.CatBoost().load_model(blob=data, format="cbm")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            path.write_bytes(data)
            return library.CatBoost().load_model(str(path), format="json")

    def serialize(self, booster: Any) -> bytes:
        """Write the binary format."""
        still = copy.deepcopy(booster)
        metadata = still.get_metadata()
        for name in VOLATILE_METADATA:
            metadata[name] = ""
        data: bytes = still._serialize_model()
        return data

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """Read the trees; as `Family.tree_ensemble`."""
        booster = self.booster_of(model)
        with TemporaryDirectory(prefix="clewline-") as folder:
            path = Path(folder, "model.json")
            booster.save_model(str(path), format="json")
            dump: dict[str, Any] = json.loads(path.read_bytes())
        if "oblivious_trees" not in dump:
            raise NotConvertible("CatBoost's trees that are not symmetric cannot be converted")
        link = self.link_of(loss_of(booster))
        floats = dump["features_info"].get("float_features", [])
        features = {feature["feature_index"]: feature for feature in floats}
        scale, bias = dump["scale_and_bias"]
        trees = constant_trees(bias, zeros=False)
        for tree in dump["oblivious_trees"]:
            trees += _trees(tree, features, len(bias), scale)
        return TreeEnsemble(trees, len(bias), link)

    def file_fields(self, model: Any, name: str) -> FileFields:
        """Return the fields if all are numbers; a file does not hold levels or texts."""
        booster = model.booster
        others = (
            booster.get_cat_feature_indices(),
            booster.get_text_feature_indices(),
            booster.get_embedding_feature_indices(),
        )
        if any(others):
            return FileFields()
        names = model.feature_names_in_
        return FileFields(tuple(Field(name=n, kind="number", nullable=True) for n in names))

    def state(self, value: Any) -> Any:
        """Return the settings and the trained trees, which its pickle keeps with times."""
        state = value.__getstate__()
        kept = {name: part for name, part in state.items() if not name.startswith("_")}
        return kept | {"trained": self.serialize(value) if value.is_fitted() else None}


def loss_of(model: Any) -> str:
    """Return the loss function that a model was trained with."""
    found = model.get_all_params().get("loss_function", "RMSE")
    return str(found).partition(":")[0]


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
            tree_of_arrays(
                leaf,
                feature=column,
                threshold=border,
                left=2 * nodes + 1,
                right=2 * nodes + 2,
                nan_left=nan,
                weight=weights,
                value=np.concatenate([np.zeros(inner), values[:, target]]),
            ),
        )
        for target in range(targets)
    ]
