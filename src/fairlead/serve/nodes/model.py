"""The node that is a model version."""

from __future__ import annotations

import time
from typing import Any

from fairlead.serve.graph import Answered, Batch
from fairlead.serve.pool import LoadedModel, ModelPool


class ModelNode:
    """Answers with one sealed model version."""

    def __init__(self, name: str, model: LoadedModel) -> None:
        self.signature = model.signature
        self.background = model.background
        self._name = name
        self._model = model

    @classmethod
    def build(cls, name: str, config: Any, pool: ModelPool) -> ModelNode:
        """Load the version `config` (`name@number`) into a node."""
        return cls(name, pool.take(config))

    def answer(self, batch: Batch) -> Answered:
        """Run the model over the whole batch in one call."""
        start = time.perf_counter()
        with self._model.lock:
            outputs = self._model.predictor.predict(batch.columns)
        spent_us = (time.perf_counter() - start) * 1e6
        return Answered(outputs, self._model.ref, ((self._name, round(spent_us, 1)),))

    def close(self) -> None:
        """Give the model back to the pool."""
        self._model.release()
