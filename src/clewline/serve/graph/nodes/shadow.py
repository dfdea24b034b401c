"""The node beside which others are asked, for the log alone."""

from __future__ import annotations

from typing import Any

from clewline.errors import InvalidConfig
from clewline.serve.graph.batch import Batch, NodeAnswers
from clewline.serve.graph.builder import Builder, Node
from clewline.serve.graph.edges import AlignedNode, require_within, same_output
from clewline.serve.graph.shadow_runner import ShadowGroup


class ShadowNode:
    """Answers with what stands below it, and lets others be asked about the same rows."""

    def __init__(self, of: Node, seat: ShadowGroup, build: Builder) -> None:
        self.signature = of.signature
        self._of = of
        self._seat = seat
        self._build = build

    @property
    def background(self) -> bytes:
        """The rows of what answers."""
        return self._of.background

    @classmethod
    def build(cls, tree: dict[str, Any], build: Builder) -> ShadowNode:
        """Build what answers, and the shadows `tree["shadows"]` apart from it."""
        name, of = tree["name"], build.node(tree["of"])
        trees = tree.get("shadows")
        if not isinstance(trees, dict) or not trees:
            raise InvalidConfig(f"{name!r} has no shadows.", "Name one or more.")
        apart = build.apart()
        try:
            nodes = {shadow: apart.node(below) for shadow, below in trees.items()}
            for shadow, node in nodes.items():
                require_within(name, of.signature, f"the shadow {shadow}", node.signature)
            same_output(
                name,
                {"what answers": of.signature, **{s: n.signature for s, n in nodes.items()}},
            )
        except BaseException:
            apart.close()
            raise
        below = {shadow: AlignedNode(node, of.signature) for shadow, node in nodes.items()}
        return cls(of, ShadowGroup(build.revision, below, of.signature.output, apart), build)

    def answer(self, batch: Batch) -> NodeAnswers:
        """Let what stands below answer, and offer the rows to the shadows."""
        answered = self._of.answer(batch)
        shadowing = self._build.shadowing
        if shadowing is not None and self._build.is_live:
            shadowing.offer(self._seat, batch, answered)
        return answered

    def close(self) -> None:
        """Give the shadows back when none of them is being asked."""
        if self._build.shadowing is None:
            self._seat.close()
        else:
            self._build.shadowing.retire(self._seat)
