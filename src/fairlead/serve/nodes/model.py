"""The node that is a model version."""

from __future__ import annotations

import time
from typing import Any

from fairlead.errors import InvalidInput
from fairlead.serve.answered import Answered, Batch, raised
from fairlead.serve.frame import Way
from fairlead.serve.graph import Builder
from fairlead.serve.marks import of_outputs
from fairlead.serve.pool import LoadedModel


class ModelNode:
    """Answers with one sealed model version."""

    def __init__(self, name: str, model: LoadedModel, *, has_marks: bool = False) -> None:
        self.signature = model.signature
        self._name = name
        self._model = model
        self._has_marks = has_marks

    @property
    def background(self) -> bytes:
        """Training rows, a JSON array; read when they are asked for."""
        return self._model.background

    @classmethod
    def build(cls, tree: dict[str, Any], build: Builder) -> ModelNode:
        """Load the version `tree["model"]` (`name@number`) into a node."""
        return cls(tree["name"], build.model(tree["model"]), has_marks=build.has_marks)

    def answer(self, batch: Batch) -> Answered:
        """Run the model over the whole batch in one call."""
        start = time.perf_counter()
        try:
            with self._model.lock:
                outputs = self._model.predictor.predict(batch.columns)
        except InvalidInput:  # a level that the model's own encoder refuses
            raise
        except Exception as error:
            raise raised(self._name, error) from error
        spent_us = (time.perf_counter() - start) * 1e6
        ways = (Way(self._model.ref, ((self._name, round(spent_us, 1)),)),)
        if not self._has_marks:
            return Answered(outputs, ways)
        return Answered(outputs, ways, None, {self._name: of_outputs(outputs)})

    def close(self) -> None:
        """Hold nothing: the builder gives the model back."""
