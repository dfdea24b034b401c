"""The node that changes the answers of what stands below it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from clewline.errors import InvalidInput, ModelFailed
from clewline.model.runtime import Outputs
from clewline.serve.graph.answer_tables import answers_of, outputs_of, require_plain
from clewline.serve.graph.batch import Batch, NodeAnswers, node_failure
from clewline.serve.graph.builder import Builder, Node
from clewline.serve.graph.checksums import of_outputs
from clewline.serve.graph.functions import Frame
from clewline.serve.graph.tables import require_frame


class AfterNode:
    """Gives a function the table of the answers, and answers with what it makes of them."""

    def __init__(self, name: str, function: Callable[[Any], Any], frame: Frame, of: Node) -> None:
        self.signature = of.signature
        self._name = name
        self._function = function
        self._frame = frame
        self._of = of

    @property
    def background(self) -> bytes:
        """The rows of what answers."""
        return self._of.background

    @classmethod
    def build(cls, tree: dict[str, Any], build: Builder) -> AfterNode:
        """Build what answers, and the function `tree["function"]`."""
        of = build.node(tree["of"])
        require_plain(tree["name"], of.signature.output)
        function = build.function(tree["function"], tree.get("config"))
        return cls(tree["name"], function, require_frame(tree["name"], tree["frame"]), of)

    def answer(self, batch: Batch) -> NodeAnswers:
        """Let what stands below answer, and change its answers."""
        answered = self._of.answer(batch)
        start = time.perf_counter()
        outputs = self._changed(answered.outputs, len(batch.ids))
        spent_us = round((time.perf_counter() - start) * 1e6, 1)
        ways = tuple(
            msgspec.structs.replace(way, path=(*way.path, (self._name, spent_us)))
            for way in answered.ways
        )
        marks = {**answered.marks, self._name: of_outputs(outputs)}
        return NodeAnswers(outputs, ways, answered.taken, marks)

    def _changed(self, outputs: Outputs, rows: int) -> Outputs:
        output = self.signature.output
        try:
            result = self._function(answers_of(outputs, output, self._frame))
        except BaseException as error:
            raise node_failure(self._name, error) from error
        try:
            with_shares = outputs.probabilities is not None
            return outputs_of(result, output, rows, with_shares=with_shares)
        except (InvalidInput, TypeError, ValueError) as error:
            message = error.message if isinstance(error, InvalidInput) else str(error)
            raise ModelFailed(
                f"What the node {self._name!r} made is no answer: {message}",
                "Mend the function; the answers that it was given were in order.",
            ) from error

    def close(self) -> None:
        """Hold nothing: the builder closes what stands below."""
