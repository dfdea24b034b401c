"""Which kind a model is of."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from clewline.errors import NotSupported
from clewline.model.kinds.kind import Kind

MODULES = ("file", "python", "transform", "estimator")
"""Modules of this package, each with a `KIND`; asked in this order."""


def kind_of(model: Any) -> Kind:
    """
    Give the kind that a model is of.

    Raises:
        NotSupported: It is of none.
    """
    for module in MODULES:
        kind: Kind = import_module(f"clewline.model.kinds.{module}").KIND
        if kind.claims(model):
            return kind
    name = model.__name__ if isinstance(model, type) else type(model).__name__
    raise NotSupported(
        f"{name} is not a fitted estimator, so it cannot be registered.",
        "Pass a fitted scikit-learn, LightGBM, XGBoost or CatBoost model, a pipeline of such, or a "
        "class of the project with predict(table) or predict(rows).",
    )
