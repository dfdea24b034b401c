"""The node that is a model version: `income@3`, or `{model: income@champion, isolate: true}`."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

from clewline.errors import InvalidConfig
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import NodeFit
from clewline.serve.graph.node import Batch, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode
from clewline.serve.graph.row_trace import output_checksums
from clewline.serve.graph.tree import Tree
from clewline.serve.log.frame import RoutePath
from clewline.serve.model_cache.loaded_models import LoadedModel
from clewline.signature.field import Signature


class ModelNode(NodeKind):
    """Answers with one sealed model version."""

    options = ("pin", "isolate")

    def __init__(self, tree: Tree, builder: Builder) -> None:
        self._model = builder.model(tree["model"], isolate=bool(tree.get("isolate")))
        self.signature = self._model.signature
        if self.signature.output.task == "transform":
            raise InvalidConfig(
                f"{self._model.ref} is fitted preprocessing, which answers nothing itself.",
                "Put it before a model: transform: NAME@ALIAS, then model: NAME@ALIAS.",
            )
        self._predict = model_call(self._model, "predict", builder.timeout_s)
        self._has_checksums = builder.has_checksums

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read the model and its options."""
        options = {key: parser.flag(written.level, key, written.at) for key in cls.options}
        model = parser.model(written.value, written.value_at)
        if model is None:
            return None
        name = parser.name(written.path, "" if written.path else "model")
        return written.declare(name, {"model": model, **options})

    @classmethod
    def fit(cls, fit: NodeFit) -> Signature | None:
        """Return the signature of the version."""
        return fit.models.get(fit.tree["model"])

    @classmethod
    def request_takers(cls, tree: Tree) -> Iterator[str | Tree]:
        """Yield the version."""
        yield tree["model"]

    @classmethod
    def title(cls, tree: Tree) -> str:
        """
        Say which version it is, and its options.

        >>> ModelNode.title({"model": "income@3", "pin": True})
        'income@3 (pin)'
        """
        options = [f"({key})" for key in cls.options if tree.get(key)]
        return " ".join([tree["model"] or "?", *options])

    @property
    def background(self) -> bytes:
        """Return training rows, a JSON array; they are read on each access."""
        return self._model.background

    def compute(self, batch: Batch) -> NodeAnswers:
        """Run the model over the whole batch in one call."""
        with self._model.lock:
            start = time.perf_counter()
            outputs = self._predict(batch.columns)
        spent_us = round((time.perf_counter() - start) * 1e6, 1)
        paths = (RoutePath(self._model.ref, ((self.name, spent_us),)),)
        if not self._has_checksums:
            return NodeAnswers(outputs, paths)
        return NodeAnswers(outputs, paths, None, {self.name: output_checksums(outputs)})


def model_call(model: LoadedModel, method: str, timeout_s: float | None) -> Any:
    """Return a method of a model; in its own process, it is ended when its time is over."""
    from clewline.model.isolation import isolated_predictor as isolated

    call = getattr(model.predictor, method)
    kinds = isolated.IsolatedPredictor, isolated.IsolatedTransformer
    if timeout_s is not None and isinstance(model.predictor, kinds):
        return functools.partial(call, timeout_s=timeout_s)
    return call
