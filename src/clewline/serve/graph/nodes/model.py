"""The node that is a model version: `income@3`, or `{model: income@champion, isolate: true}`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from clewline.errors import InvalidConfig
from clewline.formatting import format_duration, format_size
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import NodeFit
from clewline.serve.graph.node import Batch, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode
from clewline.serve.graph.row_trace import output_checksums
from clewline.serve.graph.tree import Tree
from clewline.serve.log.frame import RoutePath
from clewline.signature.field import Signature


class ModelNode(NodeKind):
    """Answers with one sealed model version."""

    options = ("pin", "isolate")

    def __init__(self, tree: Tree, builder: Builder) -> None:
        self._model = builder.model(tree["model"], tree.get("isolate", False))
        self.signature = self._model.signature
        if self.signature.output.task == "transform":
            raise InvalidConfig(
                f"{self._model.ref} is fitted preprocessing, which answers nothing itself.",
                "Put it before a model: transform: NAME@ALIAS, then model: NAME@ALIAS.",
            )
        self._predict = self._model.predictor.predict
        self._has_checksums = builder.has_checksums

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read the model and its options."""
        options = {
            "pin": parser.flag(written.level, "pin", written.at),
            "isolate": parser.isolation(written.level, written.at),
        }
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
        options = ["(pin)"] * bool(tree.get("pin")) + isolation_text(tree)
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


def isolation_text(tree: Tree) -> list[str]:
    """
    Say in a word that a node's model runs in its own process, with the limits that are stated.

    >>> isolation_text({"isolate": {"memory_bytes": 1 << 30, "timeout_s": 5.0}})
    ['(isolate: memory 1.0 GiB, timeout 5.0 s)']
    """
    isolate = tree.get("isolate")
    if not isolate:
        return []
    stated = isolate if isinstance(isolate, dict) else {}
    limits = [f"memory {format_size(stated['memory_bytes'])}"] if "memory_bytes" in stated else []
    limits += [f"timeout {format_duration(stated['timeout_s'])}"] if "timeout_s" in stated else []
    return [f"(isolate: {', '.join(limits)})" if limits else "(isolate)"]
