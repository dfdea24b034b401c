"""The node that changes the answers of the node below it: `after: nodes.py:sure`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from clewline.errors import InvalidInput, ModelFailed
from clewline.model.runtime import Outputs
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import NodeFit
from clewline.serve.graph.node import Batch, NodeAnswers, node_failure
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode
from clewline.serve.graph.row_trace import output_checksums
from clewline.serve.graph.tables import answers_of, outputs_of, require_frame
from clewline.serve.graph.tree import Tree, function_text
from clewline.signature.field import Output, Signature
from clewline.signature.frame_annotation import Frame


class AfterNode(NodeKind):
    """Gives a function the table of the answers, and answers with its result."""

    place = "after"
    children = ("of",)

    def __init__(self, tree: Tree, builder: Builder) -> None:
        self.nodes = [builder.node(tree["of"])]
        self.signature = self.require_fit(tree, self.nodes, builder)
        self._function = AnswersFunction(tree["name"], tree, self.signature.output, builder)

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read the function."""
        call = parser.function(written.value, written.value_at)
        last = "" if call is None else call.function.rpartition(":")[2]
        name = parser.name(written.path, last) if call is not None else ""
        settings = None if call is None else {"call": call}
        return written.declare(name, settings, of=written.below())

    @classmethod
    def fit(cls, fit: NodeFit) -> Signature | None:
        """Check that the answers are labels or numbers, not arrays."""
        if not fit.is_complete:
            return None
        (of,) = fit.sides
        if of.signature.output.task == "tensor":
            fit.add_unusable(of, of.signature.output)
        return of.signature

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Say which function it is."""
        return f"after {function_text(tree)}"

    def compute(self, batch: Batch) -> NodeAnswers:
        """Let the node below answer, and change its answers."""
        answers = self.nodes[0].answer(batch)
        start = time.perf_counter()
        outputs = self._function([answers.outputs], len(batch.ids))
        step = (self.name, round((time.perf_counter() - start) * 1e6, 1))
        paths = tuple(msgspec.structs.replace(p, path=(*p.path, step)) for p in answers.paths)
        checksums = {**answers.checksums, self.name: output_checksums(outputs)}
        return NodeAnswers(outputs, paths, answers.path_of_row, checksums)


class AnswersFunction:
    """
    A function of the project on tables of answers: one table, or one for each branch by name.

    Args:
        node: Name of the node.
        call: The pinned function: function, frame, config.
        output: Of the answers that it gets and gives.
        builder: Gives the function.
        branches: Names of the branches; none for one table alone.
    """

    def __init__(
        self,
        node: str,
        call: dict[str, Any],
        output: Output,
        builder: Builder,
        branches: list[str] | None = None,
    ) -> None:
        self._node, self._output, self._branches = node, output, branches
        self._frame: Frame = require_frame(node, call.get("frame"))
        self._call: Callable[[Any], Any] = builder.function(call["function"], call.get("config"))

    def __call__(self, answers: list[Outputs], rows: int) -> Outputs:
        """Call the function, and check its result."""
        tables: Any = [answers_of(outputs, self._output, self._frame) for outputs in answers]
        argument = (
            tables[0] if self._branches is None else dict(zip(self._branches, tables, strict=True))
        )
        try:
            result = self._call(argument)
        except BaseException as error:
            raise node_failure(self._node, error) from error
        try:
            with_shares = all(one.probabilities is not None for one in answers)
            return outputs_of(result, self._output, rows, with_shares=with_shares)
        except (InvalidInput, TypeError, ValueError) as error:
            message = error.message if isinstance(error, InvalidInput) else str(error)
            raise ModelFailed(
                f"The result of the node {self._node!r} is not an answer: {message}",
                "Fix the function; the answers that it got were valid.",
            ) from error
