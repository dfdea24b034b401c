"""The node that lets others answer the same rows, for the log alone: `shadow: [income@2]`."""

from __future__ import annotations

from collections.abc import Iterator

from clewline.serve.graph.builder import Builder, ShadowGroup
from clewline.serve.graph.fields import AlignedNode, NodeFit
from clewline.serve.graph.node import Batch, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode
from clewline.serve.graph.tree import Tree
from clewline.signature.field import Signature


class ShadowNode(NodeKind):
    """Answers with the node below it, and lets others be asked about the same rows."""

    place = "endpoint"
    children = ("of", "shadows")

    def __init__(self, tree: Tree, builder: Builder) -> None:
        of = builder.node(tree["of"])
        self.nodes, self.signature, self._builder = [of], of.signature, builder
        separate = builder.separate()  # shadows are closed at another time
        try:
            shadows = separate.nodes(tree, "shadows")
            self.require_fit(tree, [of, *shadows.values()], builder)
        except BaseException:
            separate.close()
            raise
        aligned = {shadow: AlignedNode(node, of.signature) for shadow, node in shadows.items()}
        self._group = ShadowGroup(builder.revision, aligned, of.signature.output, separate.close)

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read a list of nodes, or nodes by name."""
        shadows = parser.named_nodes(written.value, written.at, least=1)
        of = written.below()
        if of is None or not shadows:
            return of
        return written.declare(parser.name("", "shadow"), {}, of=of, shadows=shadows)

    @classmethod
    def fit(cls, fit: NodeFit) -> Signature | None:
        """Check that the shadows answer alike, and take no other fields."""
        if not fit.sides or fit.sides[0].name != "of":
            return None
        answering = fit.sides[0].signature
        fit.check_same_answers("shadows", shares=False)
        for shadow in fit.sides[1:]:
            fit.check_fields_within(shadow, answering.fields, "the answering node")
        return answering

    @classmethod
    def request_takers(cls, tree: Tree) -> Iterator[str | Tree]:
        """Yield the node that answers; the bounds of shadows do not count."""
        yield tree["of"]

    def compute(self, batch: Batch) -> NodeAnswers:
        """Let the node below answer, and offer the rows to the shadows."""
        answers = self.nodes[0].answer(batch)
        shadowing = self._builder.shadowing
        if shadowing is not None and self._builder.is_live:
            shadowing.offer(self._group, batch, answers)
        return answers

    def close(self) -> None:
        """Give the shadows back when none of them is being asked."""
        if self._builder.shadowing is None:
            self._group.close()
        else:
            self._builder.shadowing.retire(self._group)
