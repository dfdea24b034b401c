"""A classifier with calibrated probabilities, in the shape of an estimator."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.model.families.calibrated_model.probability_map import ProbabilityMap, apply_map
from clewline.model_families import family_of, fitted_names
from clewline.store.digest import Digest


class CalibratedModel:
    """
    What `cl.calibrate` returns: a classifier, and a map from its probabilities to better ones.

    Its label is the one with the highest calibrated probability, the first of equal ones.

    Args:
        model: The classifier as it was given.
        probabilities: The map.
        table: Digest of the table that the map was fitted on.
        rows: Rows of that table.
    """

    model_family = "calibrated_model"

    def __init__(self, model: Any, probabilities: ProbabilityMap, table: Digest, rows: int) -> None:
        self.model, self.probabilities, self.table, self.rows = model, probabilities, table, rows

    @property
    def family(self) -> Any:
        """The family of the classifier."""
        return family_of(self.model)

    @cached_property
    def estimator(self) -> Any:
        """The classifier in the shape of an estimator."""
        return self.family.as_estimator(self.model)

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels."""
        return np.asarray(self.estimator.classes_)

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """The columns that the classifier was fitted on."""
        names = fitted_names(self.estimator)
        if names is None:
            raise AttributeError("it was fitted on columns without names")
        return np.array(names, dtype=object)

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        return int(self.estimator.n_features_in_)

    def predict_proba(self, table: Any) -> NDArray[np.float64]:
        """Return the calibrated probability of each label, shape (n, labels)."""
        found = np.asarray(self.estimator.predict_proba(table), dtype=np.float64)
        return apply_map(self.probabilities, found.reshape(-1, len(self.classes_)))

    def predict(self, table: Any) -> NDArray[Any]:
        """Return the label of each row, shape (n,)."""
        return np.asarray(self.classes_[self.predict_proba(table).argmax(axis=1)])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return no settings: those of the classifier are part of it."""
        return {}
