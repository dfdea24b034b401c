"""A model as explainers ask it: loaded once, for any number of rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from clewline.errors import ClewlineError, ModelFailed
from clewline.explain.leaf_boxes import LeafBoxes, build_leaf_boxes
from clewline.model.compile.trees import ServedTrees
from clewline.model.families.sample_file import TrainingSample
from clewline.model.package import Package
from clewline.model.runtime.outputs import Outputs, Predictor, take_rows
from clewline.model_families import family_named
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

T = TypeVar("T")
BACKGROUND_SAMPLE = "training rows in the package"


class ExplainedModel:
    """
    A model that explanations are of, with the rows that unknown fields are taken from.

    For one thread at a time. Predictor and sample are loaded when they are asked for first,
    because trees are explained without them.

    Args:
        ref: Its name: `income@3`, or an address.
        signature: Its fields and output.
        load: Loads what answers rows.
        read_sample: Reads one or more rows that unknown fields are taken from.
        source: What these rows are, in a few words.
        package: Of a registered model.
    """

    def __init__(
        self,
        ref: str,
        signature: Signature,
        load: Callable[[], Predictor],
        read_sample: Callable[[], TrainingSample],
        *,
        source: str = BACKGROUND_SAMPLE,
        package: Package | None = None,
    ) -> None:
        self.ref, self.signature, self.package = ref, signature, package
        self.source = source
        self.rows_asked = 0
        self.watch: Callable[[int, float], None] | None = None
        """Called after each call of the model, with its rows and the seconds that they took."""
        self._load, self._read_sample = load, read_sample
        self._predictor: Predictor | None = None
        self._remembered: dict[str, Any] = {}

    def predict(self, columns: Columns) -> Outputs:
        """
        Ask the model.

        Raises:
            ModelFailed: It raised, or answered with a number that is not finite.
        """
        if self._predictor is None:
            self._predictor = self._load()
            if self.watch is not None and len(columns) > 1:
                self._ask(take_rows(columns, slice(0, 1)))  # a slow model is noticed at once
        return self._ask(columns)

    def remember(self, key: str, make: Callable[[], T]) -> T:
        """Return what an explainer made for this model before, or make it."""
        if key not in self._remembered:
            self._remembered[key] = make()
        found: T = self._remembered[key]
        return found

    @cached_property
    def sample(self) -> TrainingSample:
        """Training rows, perhaps with their truth and the served model's answers."""
        return self._read_sample()

    @property
    def background(self) -> Columns:
        """The rows that unknown fields are taken from."""
        return self.sample.columns

    @cached_property
    def trees(self) -> ServedTrees | None:
        """The trees of an ensemble that compares raw fields; None of other models."""
        if self.package is None:
            return None
        family = family_named(self.package.manifest.runtime)
        found: ServedTrees | None = family.served_trees(self.package.files, self.signature)
        return found

    @cached_property
    def boxes(self) -> LeafBoxes | None:
        """The boxes of the leaves of its trees; None of other models."""
        return None if self.trees is None else build_leaf_boxes(self.trees, self.signature)

    def close(self) -> None:
        """Free the model; no call comes after it."""
        predictor, self._predictor = self._predictor, None
        if predictor is not None:
            predictor.close()

    def _ask(self, columns: Columns) -> Outputs:
        assert self._predictor is not None, "the model is loaded before it is asked"
        started = time.perf_counter()
        try:
            found = self._predictor.predict(columns)
        except ClewlineError:
            raise
        except Exception as error:  # code of a person, on rows that were made up
            raise ModelFailed(
                f"{self.ref} raised {type(error).__name__} on a changed row: {error}".rstrip(": "),
                "An explanation asks the model about mixtures of rows; let it answer those too.",
            ) from error
        self.rows_asked += len(columns)
        if self.watch is not None:
            self.watch(len(columns), time.perf_counter() - started)
        for numbers in (found.values, found.probabilities):
            if numbers is not None and not np.isfinite(numbers).all():
                raise ModelFailed(
                    f"{self.ref} answered a changed row with a number that is not finite.",
                    "Let it answer every row with finite numbers.",
                )
        return found
