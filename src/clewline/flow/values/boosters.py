"""
Boosters of LightGBM, XGBoost and CatBoost as values.

They are stored as scikit-learn's estimators are, the trained trees inside in the
library's own format; nothing is pickled.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

CLASSES = (
    ("lightgbm.basic", "Booster"),
    ("xgboost.core", "Booster"),
    ("catboost.core", "CatBoost"),
)

UNSTEADY = ("model_guid", "train_finish_time")
"""What CatBoost writes into a model that differs each time the same one is trained."""


def is_booster(value: Any) -> bool:
    """Whether a value is a booster; CatBoost's estimators are, the others' are scikit-learn's."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in CLASSES)
    return any(cls is not None and isinstance(value, cls) for cls in found)


def is_catboost(value: Any) -> bool:
    """Whether a value is a model of CatBoost."""
    cls = getattr(sys.modules.get("catboost.core"), "CatBoost", None)
    return cls is not None and isinstance(value, cls)


def catboost_bytes(model: Any) -> bytes:
    """Write a fitted model of CatBoost so that the same one gives the same bytes."""
    still = copy.deepcopy(model)
    told = still.get_metadata()
    for name in UNSTEADY:
        told[name] = ""
    data: bytes = still._serialize_model()
    return data


def catboost_state(model: Any) -> dict[str, Any]:
    """Give the settings and the trained state of a model of CatBoost."""
    state = model.__getstate__()
    kept = {name: part for name, part in state.items() if not name.startswith("_")}
    return kept | {"trained": catboost_bytes(model) if model.is_fitted() else None}
