"""
Boosters of other libraries, asked as estimators of scikit-learn are asked.

LightGBM's, XGBoost's and CatBoost's own objects (`Booster`, `CatBoost`) tell neither
their labels nor their columns as an estimator does, and CatBoost's estimators answer
in other shapes. `estimator_of` gives any of them in the one shape that we ask.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clewline.errors import NotSupported

Library = Literal["lightgbm", "xgboost", "catboost"]
LIBRARIES: tuple[Library, ...] = ("lightgbm", "xgboost", "catboost")


def library_of(model: Any) -> Library | None:
    """Say whose booster a model is, bare or as that library's estimator; None for any other."""
    if isinstance(model, Boosted):
        return model.library
    for cls in type(model).__mro__:
        home = cls.__module__.partition(".")[0]
        for library in LIBRARIES:
            if home == library:
                return library
    return None


def estimator_of(model: Any) -> Any:
    """
    Give a model in the shape of an estimator: a bare booster and CatBoost's own wrapped.

    Raises:
        NotSupported: A booster that was not trained, or to do what we do not serve.
    """
    library = library_of(model)
    if library is None or isinstance(model, Boosted):
        return model
    if library != "catboost" and not is_bare(model):
        return model
    return _WRAPPED[library](model)


def is_bare(model: Any) -> bool:
    """Whether it is a booster itself, not an estimator around one."""
    return type(model).__name__ in ("Booster", "CatBoost") and library_of(model) is not None


def refusals() -> tuple[type[Exception], ...]:
    """Give what a model raises when it refuses rows: `ValueError`, and what libraries have."""
    found: list[type[Exception]] = [ValueError]
    for module, name in (
        ("catboost", "CatBoostError"),
        ("lightgbm.basic", "LightGBMError"),
        ("xgboost.core", "XGBoostError"),
    ):
        if module in sys.modules and hasattr(sys.modules[module], name):
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


class Boosted:
    """
    A booster as an estimator.

    Args:
        library: Whose it is.
        booster: `lightgbm.Booster`, `xgboost.Booster` or a fitted model of CatBoost.
        classes: The labels in the order of its probabilities; None for a regressor.
        names: The columns that it was fitted on; None where they had no names.
    """

    def __init__(
        self,
        library: Library,
        booster: Any,
        classes: list[Any] | None,
        names: list[str] | None,
    ) -> None:
        self.library, self.booster = library, booster
        self.classes_ = None if classes is None else np.array(classes)
        if names is not None:
            self.feature_names_in_ = names

    def predict(self, table: Any) -> NDArray[Any]:
        """Give the value or the label of each row, shape (n,)."""
        if self.classes_ is None:
            return np.asarray(_raw(self, table), dtype=np.float64).reshape(-1)
        return self.labels_of(self.predict_proba(table))

    def labels_of(self, shares: NDArray[np.float64]) -> NDArray[Any]:
        """Give the label that the library chooses by probabilities."""
        assert self.classes_ is not None
        if self.library == "lightgbm" or shares.shape[1] > 2:
            return np.asarray(self.classes_[shares.argmax(axis=1)])
        # XGBoost and CatBoost ask whether the second is above a half: 0.5 is the first.
        return np.asarray(self.classes_[(shares[:, 1] > 0.5).astype(np.int64)])

    def predict_proba(self, table: Any) -> NDArray[np.float64]:
        """Give the probability of each label, shape (n, labels)."""
        found = np.asarray(_raw(self, table))
        if found.ndim == 1:
            found = np.column_stack([1 - found, found])
        return found.astype(np.float64)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give no settings: those of a booster are part of it."""
        return {}

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        return _width(self)


def _raw(model: Boosted, table: Any) -> Any:
    match model.library:
        case "lightgbm":
            return model.booster.predict(table, num_threads=1)
        case "xgboost":
            return model.booster.predict(_matrix(table))
        case "catboost":
            kind = "RawFormulaVal" if model.classes_ is None else "Probability"
            if model.classes_ is None and _loss(model.booster) in ("Poisson", "Tweedie"):
                kind = "Exponent"
            return model.booster.predict(table, prediction_type=kind, thread_count=1)


def _matrix(table: Any) -> Any:
    import xgboost

    return xgboost.DMatrix(table, enable_categorical=True, nthread=1)


def _width(model: Boosted) -> int:
    match model.library:
        case "lightgbm":
            count = model.booster.num_feature()
        case "xgboost":
            count = model.booster.num_features()
        case "catboost":
            count = len(model.booster.feature_names_)
    return int(count)


def _lightgbm(booster: Any) -> Boosted:
    told = booster.dump_model(num_iteration=1)
    objective = str(told.get("objective", "")).partition(" ")[0]
    if not objective or objective in ("lambdarank", "rank_xendcg", "custom"):
        raise _unserved("LightGBM", objective)
    names = [str(name) for name in booster.feature_name()]
    plain = [f"Column_{place}" for place in range(len(names))]
    classes = _classes(objective, ("binary",), ("multiclass", "multiclassova"), told["num_class"])
    return Boosted("lightgbm", booster, classes, None if names == plain else names)


def _xgboost(booster: Any) -> Boosted:
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    if objective.startswith("rank:") or objective in ("multi:softmax", "binary:hinge"):
        raise _unserved("XGBoost", objective)
    count = int(learner["learner_model_param"]["num_class"])
    classes = _classes(objective, ("binary:logistic",), ("multi:softprob",), count)
    return Boosted("xgboost", booster, classes, booster.feature_names)


def _catboost(model: Any) -> Boosted:
    if not model.is_fitted():
        raise NotSupported(f"The {type(model).__name__} was not fitted.", "Fit it first.")
    names = [str(name) for name in model.feature_names_]
    plain = [str(place) for place in range(len(names))]
    classes = list(model.classes_) or None
    if classes is None and _loss(model) in ("QueryRMSE", "YetiRank", "PairLogit", "MultiRMSE"):
        raise _unserved("CatBoost", _loss(model))
    return Boosted("catboost", model, classes, None if names == plain else names)


def _loss(model: Any) -> str:
    found = model.get_all_params().get("loss_function", "RMSE")
    return str(found).partition(":")[0]


def _classes(
    objective: str, two: tuple[str, ...], several: tuple[str, ...], count: int
) -> list[int] | None:
    if objective in two:
        return [0, 1]
    return list(range(count)) if objective in several else None


def _unserved(library: str, objective: str) -> NotSupported:
    return NotSupported(
        f"A booster of {library} with the objective {objective or 'unknown'!r} gives neither "
        "probabilities nor a value.",
        "Train it to classify (with probabilities) or to regress.",
    )


_WRAPPED = {"lightgbm": _lightgbm, "xgboost": _xgboost, "catboost": _catboost}
