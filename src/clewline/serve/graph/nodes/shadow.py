"""The node that lets others answer the same rows, for the log alone: `shadow: [income@2]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import AlignedNode, check_fields_within, check_same_answers
from clewline.serve.graph.node import Batch, Node, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind, Side
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.shadow_runner import ShadowGroup
from clewline.serve.graph.tree import Tree
from clewline.signature.field import Signature


class ShadowNode(NodeKind):
    """Answers with the node below it, and lets others be asked about the same rows."""

    place = "endpoint"
    children = ("of", "shadows")

    def __init__(self, of: Node, group: ShadowGroup, builder: Builder) -> None:
        self.signature = of.signature
        self._of = of
        self._group = group
        self._builder = builder

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read a list of nodes, or nodes by name."""
        shadows = parser.named_nodes(written.value, written.at, least=1)
        of = written.below()
        if of is None or not shadows:
            return of
        name = parser.name("", "shadow")
        return DeclaredNode(
            kind="shadow", at=written.at, name=name, children={"of": of, "shadows": shadows}
        )

    @classmethod
    def fit(
        cls, tree: Tree, sides: list[Side], models: Mapping[str, Signature], problems: Problems
    ) -> Signature | None:
        """Check that the shadows answer alike, and take no other fields."""
        answering = sides[0].signature
        if answering is None:
            return None
        known = [sides[0], *(side for side in sides[1:] if side.signature is not None)]
        check_same_answers(tree, "shadows", known, problems, shares=False)
        for shadow in known[1:]:
            check_fields_within(shadow, answering.fields, "the answering node", problems)
        return answering

    @classmethod
    def request_takers(cls, tree: Tree) -> Iterator[str | Tree]:
        """Yield the node that answers; the bounds of shadows do not count."""
        yield tree["of"]

    @classmethod
    def build(cls, tree: Tree, builder: Builder) -> ShadowNode:
        """Build the node that answers, and the shadows, which are closed at another time."""
        of = builder.node(tree["of"])
        separate = builder.separate()
        try:
            nodes = separate.nodes(tree, "shadows")
            cls.require_fit(tree, [of, *nodes.values()], builder)
        except BaseException:
            separate.close()
            raise
        below = {shadow: AlignedNode(node, of.signature) for shadow, node in nodes.items()}
        group = ShadowGroup(builder.revision, below, of.signature.output, separate)
        return cls(of, group, builder)

    @property
    def background(self) -> bytes:
        """Return the rows of the node that answers."""
        return self._of.background

    def compute(self, batch: Batch) -> NodeAnswers:
        """Let the node below answer, and offer the rows to the shadows."""
        answers = self._of.answer(batch)
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
