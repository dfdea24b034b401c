"""The adapter of CatBoost."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clewline.errors import NotSupported
from clewline.model.families.booster_files import FileFields
from clewline.model.families.boosting import (
    BoosterEstimator,
    BoosterFamily,
    number_field,
    unserved,
)
from clewline.model.families.family import json_object

UNSTEADY = ("model_guid", "train_finish_time")
"""Metadata of a model that differs each time the same one is trained."""

RANKING = ("QueryRMSE", "YetiRank", "PairLogit", "MultiRMSE")


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
        classes = list(booster.classes_) or None
        if classes is None and loss_of(booster) in RANKING:
            raise unserved(self.title, loss_of(booster))
        return CatBoostEstimator(booster, classes, None if unnamed else names)

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
        return _steady_bytes(booster)

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """Read the trees."""
        from clewline.model.families.catboost.trees import tree_ensemble

        booster = self.booster_of(model)
        return tree_ensemble(booster, loss_of(booster))

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
        return FileFields(tuple(number_field(each) for each in model.feature_names_in_))

    def state(self, value: Any) -> Any:
        """Return the settings and the trained trees, which its pickle keeps with times."""
        state = value.__getstate__()
        kept = {name: part for name, part in state.items() if not name.startswith("_")}
        return kept | {"trained": _steady_bytes(value) if value.is_fitted() else None}


def loss_of(model: Any) -> str:
    """Return the loss function that a model was trained with."""
    found = model.get_all_params().get("loss_function", "RMSE")
    return str(found).partition(":")[0]


def _steady_bytes(model: Any) -> bytes:
    """Write a fitted model so that the same one gives the same bytes."""
    still = copy.deepcopy(model)
    metadata = still.get_metadata()
    for name in UNSTEADY:
        metadata[name] = ""
    data: bytes = still._serialize_model()
    return data
