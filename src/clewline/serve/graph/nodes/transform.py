"""The node that changes the fields before what stands below it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from clewline.errors import InvalidConfig, InvalidInput, ModelFailed
from clewline.model.isolation.isolated_predictor import IsolatedTransformer
from clewline.model.runtime import Transformer
from clewline.serve.graph.batch import Batch, NodeAnswers, node_failure
from clewline.serve.graph.builder import Builder, Node
from clewline.serve.graph.checksums import of_columns
from clewline.serve.graph.edges import Fit, require_within
from clewline.serve.graph.functions import Frame
from clewline.serve.graph.joined import background_of
from clewline.serve.graph.tables import columns_of, require_frame, table_of
from clewline.serve.log.frame import RoutePath
from clewline.serve.model_cache.loaded_models import LoadedModel
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature

Change = Callable[[Columns], Columns]


class TransformNode:
    """Gives what stands below it the columns that a function, or fitted preprocessing, makes."""

    def __init__(
        self,
        name: str,
        change: Change,
        then: Node,
        fields: tuple[Field, ...],
        prepared: LoadedModel | None = None,
    ) -> None:
        self.signature = Signature(fields=fields, output=then.signature.output)
        self._name = name
        self._prepared = prepared
        self._change = change
        self._then = then

    @classmethod
    def build(cls, tree: dict[str, Any], build: Builder) -> TransformNode:
        """Build what follows, and the function or the package that the tree names."""
        name, then = tree["name"], build.node(tree["then"])
        if "model" in tree:
            model = build.model(tree["model"], isolate=bool(tree.get("isolate")))
            change = _fitted(name, model, then, build.timeout_s)
            return cls(name, change, then, model.signature.fields, model)
        fields = _fields(name, tree.get("fields"), then)
        function = build.function(tree["function"], tree.get("config"))
        signature = Signature(fields=fields, output=then.signature.output)
        frame = require_frame(name, tree["frame"])
        change = _called(name, function, frame, signature, Checker(then.signature))
        return cls(name, change, then, fields)

    @property
    def background(self) -> bytes:
        """Rows of the fields that go in; of declared ones made where nothing else is known."""
        if self._prepared is not None:
            return self._prepared.background
        return background_of(self.signature.fields, self._then)

    def answer(self, batch: Batch) -> NodeAnswers:
        """Change the columns of the batch, and let what follows answer it."""
        start = time.perf_counter()
        try:
            columns = self._change(batch.columns)
        except (ModelFailed, InvalidInput):
            raise
        except BaseException as error:
            raise node_failure(self._name, error) from error
        spent_us = round((time.perf_counter() - start) * 1e6, 1)
        answered = self._then.answer(Batch(columns, batch.ids, batch.entities))
        return NodeAnswers(
            answered.outputs,
            tuple(_through(self._name, spent_us, way) for way in answered.ways),
            answered.taken,
            {self._name: of_columns(columns), **answered.marks},
        )

    def close(self) -> None:
        """Hold nothing: the builder gives everything back."""


def _called(
    name: str, function: Callable[[Any], Any], frame: Frame, signature: Signature, checker: Checker
) -> Change:
    def change(columns: Columns) -> Columns:
        try:
            result = function(table_of(columns, signature, frame))
        except BaseException as error:
            raise node_failure(name, error) from error
        try:
            return columns_of(result, checker, len(columns))
        except InvalidInput as error:  # not the caller's fault: the function made it
            raise ModelFailed(
                f"What the node {name!r} made does not fit what follows: {error.message}", error.fix
            ) from error

    return change


def _fitted(name: str, model: LoadedModel, then: Node, timeout_s: float | None) -> Change:
    if model.signature.output.task != "transform":
        raise InvalidConfig(
            f"{model.ref} of the transform {name!r} is no fitted preprocessing, "
            f"but answers {model.signature.output.task}.",
            "Register the preprocessing on its own, or name a function.",
        )
    made = model.signature.transformed
    require_within(name, made, "what follows", then.signature)
    fit = Fit(made, then.signature)
    transform = _transform_of(cast(Transformer, model.predictor), timeout_s)

    def change(columns: Columns) -> Columns:
        with model.lock:
            return fit.columns(transform(columns))

    return change


def _transform_of(transformer: Transformer, timeout_s: float | None) -> Change:
    """Give the call; preprocessing in a process of its own is ended when its time is over."""
    if isinstance(transformer, IsolatedTransformer) and timeout_s is not None:
        return functools.partial(transformer.transform, timeout_s=timeout_s)
    return transformer.transform


def _fields(name: str, declared: Any, then: Node) -> tuple[Field, ...]:
    if declared is None:
        return then.signature.fields
    try:
        return msgspec.convert(declared, tuple[Field, ...])
    except msgspec.ValidationError as error:
        raise InvalidConfig(
            f"The fields of {name!r}: {error}.", "Give each a name and a kind."
        ) from error


def _through(name: str, spent_us: float, way: RoutePath) -> RoutePath:
    return msgspec.structs.replace(way, path=((name, spent_us), *way.path))
