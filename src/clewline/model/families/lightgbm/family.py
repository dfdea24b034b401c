"""The adapter of LightGBM."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.model.families.booster_files import FileFields
from clewline.model.families.boosting import (
    BoosterEstimator,
    BoosterFamily,
    classes_of,
    number_field,
    unserved,
)
from clewline.signature.field import Field


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
        if not objective or objective in ("lambdarank", "rank_xendcg", "custom"):
            raise unserved(self.title, objective)
        names = [str(name) for name in booster.feature_name()]
        unnamed = names == [f"Column_{place}" for place in range(len(names))]
        several = ("multiclass", "multiclassova")
        classes = classes_of(objective, ("binary",), several, dump["num_class"])
        return LightGBMEstimator(booster, classes, None if unnamed else names)

    def parse(self, library: Any, data: bytes) -> Any:
        """Read the text format."""
        if not self.recognizes(data):
            raise ValueError("it does not begin as a model does")
        return library.Booster(model_str=data.decode())

    def serialize(self, booster: Any) -> bytes:
        """Write the text format."""
        text: str = booster.model_to_string()
        return text.encode()

    def tree_ensemble(self, model: Any, *, exact_ties: bool, from_arrow: bool) -> Any:
        """Read the trees; from Arrow tables LightGBM compares tiny numbers as they are."""
        from clewline.model.families.lightgbm.trees import tree_ensemble

        return tree_ensemble(self.booster_of(model), from_arrow=from_arrow)

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
        fields = (_field(each, infos.get(each, {}), levels.get(each)) for each in names)
        return FileFields(tuple(fields), levels)


def _field(name: str, info: Any, levels: tuple[str, ...] | None) -> Field:
    if levels is not None:
        return Field(name=name, kind="category", nullable=True, levels=tuple(sorted(levels)))
    low, high = info.get("min_value"), info.get("max_value")
    is_bounded = low is not None and high is not None and low < high
    return number_field(name, (float(low), float(high)) if is_bounded else None)
