"""The node that is a model version."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from clewline.errors import InvalidConfig, InvalidInput
from clewline.model.isolation.isolated_predictor import IsolatedPredictor
from clewline.model.runtime import Outputs, Predictor
from clewline.serve.graph.batch import Batch, NodeAnswers, node_failure
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.checksums import of_outputs
from clewline.serve.log.frame import RoutePath
from clewline.serve.model_cache.loaded_models import LoadedModel
from clewline.signature.columns import Columns


class ModelNode:
    """Answers with one sealed model version."""

    def __init__(
        self,
        name: str,
        model: LoadedModel,
        *,
        has_marks: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self.signature = model.signature
        self._name = name
        self._model = model
        self._predict = _predict_of(model.predictor, timeout_s)
        self._has_marks = has_marks

    @property
    def background(self) -> bytes:
        """Training rows, a JSON array; read when they are asked for."""
        return self._model.background

    @classmethod
    def build(cls, tree: dict[str, Any], build: Builder) -> ModelNode:
        """Load the version `tree["model"]` (`name@number`) into a node."""
        model = build.model(tree["model"], isolate=bool(tree.get("isolate")))
        if model.signature.output.task == "transform":
            raise InvalidConfig(
                f"{model.ref} is fitted preprocessing, which answers nothing itself.",
                "Put it before a model: transform: NAME@ALIAS, then model: NAME@ALIAS.",
            )
        return cls(tree["name"], model, has_marks=build.has_marks, timeout_s=build.timeout_s)

    def answer(self, batch: Batch) -> NodeAnswers:
        """Run the model over the whole batch in one call."""
        try:
            with self._model.lock:
                start = time.perf_counter()
                outputs = self._predict(batch.columns)
        except InvalidInput:  # a level that the model's own encoder refuses
            raise
        except BaseException as error:
            raise node_failure(self._name, error) from error
        spent_us = (time.perf_counter() - start) * 1e6
        ways = (RoutePath(self._model.ref, ((self._name, round(spent_us, 1)),)),)
        if not self._has_marks:
            return NodeAnswers(outputs, ways)
        return NodeAnswers(outputs, ways, None, {self._name: of_outputs(outputs)})

    def close(self) -> None:
        """Hold nothing: the builder gives the model back."""


def _predict_of(predictor: Predictor, timeout_s: float | None) -> Callable[[Columns], Outputs]:
    """Give the call; a model in a process of its own is ended when its time is over."""
    if isinstance(predictor, IsolatedPredictor) and timeout_s is not None:
        return functools.partial(predictor.predict, timeout_s=timeout_s)
    return predictor.predict
