"""The node that changes the fields before the node below it: `transform: nodes.py:tidy`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from clewline.errors import InvalidInput, ModelFailed
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import ColumnSelection, NodeFit, background_of
from clewline.serve.graph.node import Batch, NodeAnswers, node_failure
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.nodes.model import ModelNode
from clewline.serve.graph.parser import (
    DeclaredNode,
    GraphParser,
    ModelReference,
    WrittenNode,
    is_model,
    short_name,
)
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.row_trace import column_checksums
from clewline.serve.graph.tables import columns_of, require_frame, table_of
from clewline.serve.graph.tree import Tree, function_text, title
from clewline.serve.model_cache.loaded_models import LoadedModel
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Kind, Signature


class TransformNode(NodeKind):
    """Gives the node below it the columns that a function or fitted preprocessing makes."""

    place = "before"
    children = ("then",)

    def __init__(self, tree: Tree, builder: Builder) -> None:
        then = builder.node(tree["then"])
        self.nodes = [then]
        self._model: LoadedModel | None = None
        if "model" in tree:
            self._model = builder.model(tree["model"], tree.get("isolate", False))
        self.signature = self.require_fit(tree, self.nodes, builder)
        if self._model is not None:
            predictor: Any = self._model.predictor  # a `Transformer`
            self._call = predictor.transform
            self._selection = ColumnSelection(self._model.signature.transformed, then.signature)
        else:
            self._call = builder.function(tree["function"], tree.get("config"))
            self._frame = require_frame(tree["name"], tree["frame"])
            self._checker = Checker(then.signature)

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read a function with `fields:`, or a model that is fitted preprocessing."""
        value, at = written.value, written.value_at
        model = value.get("model") if isinstance(value, dict) else value
        settings: dict[str, Any] | None = None
        if isinstance(model, str) and is_model(model):
            options = value if isinstance(value, dict) else {}
            parser.problems.add_unknown_keys(options, ("model", "isolate"), at)
            settings = {"model": ModelReference(at, model, is_preprocessing=True)}
            if isolate := parser.isolation(options, at):
                settings["isolate"] = isolate
            last = short_name(model).partition("@")[0]
        elif (call := parser.function(value, at, ("fields",))) is not None:
            fields = value.get("fields") if isinstance(value, dict) else None
            settings = {
                "call": call,
                "fields": _read_fields(fields, f"{at}.fields", parser.problems),
            }
            last = call.function.rpartition(":")[2]
        name = "" if settings is None else parser.name(written.path, last)
        return written.declare(name, settings, then=written.below())

    @classmethod
    def fit(cls, fit: NodeFit) -> Signature | None:
        """Check that fitted preprocessing makes the fields of the node below it."""
        if not fit.is_complete:
            return None
        (then,) = fit.sides
        fields, output = fit.tree.get("fields"), then.signature.output
        if "model" in fit.tree:
            prepared = fit.models.get(fit.tree["model"])
            if prepared is None:
                return None
            source = f"{fit.tree['name']} ({title(fit.tree)})"
            below = then._replace(name=then.tree["name"])
            fit.check_fields_within(below, prepared.transformed.fields, source)
            return Signature(fields=prepared.fields, output=output)
        if fields is None:
            return then.signature
        return Signature(fields=msgspec.convert(fields, tuple[Field, ...]), output=output)

    @classmethod
    def request_takers(cls, tree: Tree) -> Iterator[str | Tree]:
        """Yield the preprocessing, or the node below if the function keeps its fields."""
        if "model" in tree:
            yield tree["model"]
        elif tree["fields"] is None:
            yield tree["then"]

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Say which function or preprocessing it is."""
        return f"transform {ModelNode.title(tree) if 'model' in tree else function_text(tree)}"

    @property
    def background(self) -> bytes:
        """Return rows of the fields that go in; values of unknown fields are made up."""
        if self._model is not None:
            return self._model.background
        return background_of(self.signature.fields, self.nodes[0])

    def compute(self, batch: Batch) -> NodeAnswers:
        """Change the columns of the batch, and let the node below answer it."""
        start = time.perf_counter()
        if self._model is not None:
            with self._model.lock:
                columns = self._selection.select(self._call(batch.columns))
        else:
            columns = self._function_columns(batch.columns)
        step = (self.name, round((time.perf_counter() - start) * 1e6, 1))
        answers = self.nodes[0].answer(Batch(columns, batch.ids, batch.entities))
        return NodeAnswers(
            answers.outputs,
            tuple(msgspec.structs.replace(p, path=(step, *p.path)) for p in answers.paths),
            answers.path_of_row,
            {self.name: column_checksums(columns), **answers.checksums},
        )

    def _function_columns(self, columns: Columns) -> Columns:
        """Call the function, and check that its result fits the node below."""
        try:
            result = self._call(table_of(columns, self.signature, self._frame))
        except BaseException as error:  # also an InvalidInput: the caller's rows are valid
            raise node_failure(self.name, error) from error
        try:
            return columns_of(result, self._checker, len(columns))
        except InvalidInput as error:
            raise ModelFailed(
                f"The result of the node {self.name!r} does not fit the next node: {error.message}",
                error.fix,
            ) from error


def _read_fields(value: Any, at: str, problems: Problems) -> list[dict[str, Any]] | None:
    """Read `fields:`, NAME: KIND or NAME: {kind: KIND, …}, as a revision keeps them."""
    if value is None:
        return None
    if not isinstance(value, dict):
        problems.add_wrong_value(at, value, "Write NAME: KIND for each, such as age: integer.")
        return None
    found = []
    for name, stated in value.items():
        plain = {"kind": stated} if isinstance(stated, str) else stated
        place = f"{at}.{name}"
        try:
            found.append(msgspec.convert({**plain, "name": str(name)}, Field))
        except (msgspec.ValidationError, TypeError) as error:
            kind = plain.get("kind") if isinstance(plain, dict) else plain
            facts = {"kind": str(kind), "value": stated, "error": str(error)}
            problems.add("invalid_field", place, known=get_args(Kind), **facts)
            continue
        known = Field.__struct_fields__
        problems.add_unknown_keys([key for key in plain if key not in known], known[1:], place)
    plain_fields: list[dict[str, Any]] = msgspec.to_builtins(found)
    return plain_fields
