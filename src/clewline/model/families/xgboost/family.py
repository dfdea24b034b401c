"""The adapter of XGBoost."""

from __future__ import annotations

import json
import math
from typing import Any

from clewline.model.families.booster_files import FileFields
from clewline.model.families.boosting import (
    BoosterEstimator,
    BoosterFamily,
    classes_of,
    unserved,
)
from clewline.model.families.family import json_object
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
        objective = learner["objective"]["name"]
        if objective.startswith("rank:") or objective in ("multi:softmax", "binary:hinge"):
            raise unserved(self.title, objective)
        count = int(learner["learner_model_param"]["num_class"])
        classes = classes_of(objective, ("binary:logistic",), ("multi:softprob",), count)
        return XGBoostEstimator(booster, classes, booster.feature_names)

    def parse(self, library: Any, data: bytes) -> Any:
        """Read UBJSON or JSON."""
        booster = library.Booster({"nthread": 1})
        booster.load_model(bytearray(data))
        return booster

    def serialize(self, booster: Any) -> bytes:
        """Write UBJSON."""
        return bytes(booster.save_raw("ubj"))

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """Read the trees."""
        from clewline.model.families.xgboost.trees import tree_ensemble

        return tree_ensemble(self.booster_of(model), missing=self.missing_of(model))

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
