"""
One class for each node kind: how it is written, pinned, checked, shown, built and answers.

    model       a sealed model version
    transform   a function or fitted preprocessing, before the node below it
    after       a function on the answers of the node below it
    route       one of its arms answers each row
    combine     all of its branches answer, and their answers become one
    shadow      other nodes get the same rows; their answers are logged and compared

Kinds register under the entry-point group `clewline.nodes`, ours and those of
plug-ins alike; the name of the entry point is the key in an endpoint's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from clewline.errors import InvalidInput, ModelFailed
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import NodeFit, Side, joined_background
from clewline.serve.graph.node import Batch, Node, NodeAnswers, node_failure
from clewline.serve.graph.parser import DeclaredNode, GraphParser, KeyPlace, WrittenNode
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.resolver import Resolver
from clewline.serve.graph.tree import Tree, children, node_kind, settings_text
from clewline.signature.field import Signature


class NodeKind:
    """
    The class of a node kind; its objects are the nodes that answer.

    A plug-in sets `place` and `children`, and writes `__init__` and `compute`; the
    other methods have defaults.
    """

    place: ClassVar[KeyPlace] = "answers"
    """Whether the key answers, or stands before or after a node that does."""
    children: ClassVar[tuple[str, ...]] = ()
    """
    Keys under which other nodes stand: a node, or several by name.

    The first of a kind that stands before or after a node is the key of that node in
    the resolved tree; the others stand beside the kind's own key in the file.
    """
    options: ClassVar[tuple[str, ...]] = ()
    """Other keys beside its own."""

    name: str = ""  # set by the builder
    signature: Signature
    nodes: list[Node]  # that stand below it

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """
        Read the node from the file.

        By default the value is a mapping of settings, which the resolved tree keeps
        as they are.

        Returns:
            The node; None if mistakes were added to `parser.problems`.
        """
        name = parser.name(written.path, written.kind)
        settings = {} if written.value is None else written.value
        if not isinstance(settings, dict):
            fix = f"Write a mapping of its settings, such as {written.kind}: {{}}."
            parser.problems.add_wrong_value(written.value_at, settings, fix)
            settings = None
        else:
            settings = {str(key): value for key, value in settings.items()}
        below: dict[str, Any] = {}
        for key in cls.children:
            if cls.place != "answers" and key == cls.children[0]:
                below[key] = written.below()
            elif key in written.level:
                value, at = written.level[key], f"{written.at}.{key}"
                if parser.is_node(value):
                    below[key] = parser.node(value, at, written.path)
                else:
                    below[key] = parser.named_nodes(value, at, least=1, path=written.path)
        return written.declare(name, settings, **below)

    @classmethod
    def resolve(cls, node: DeclaredNode, resolver: Resolver) -> Tree:
        """Return the node as a revision pins it: models by number, functions by their code."""
        return {
            **resolver.settings(node.name, node.settings),
            "kind": node.kind,
            "name": node.name,
            **{key: resolver.child(child) for key, child in node.children.items()},
        }

    @classmethod
    def fit(cls, fit: NodeFit) -> Signature | None:
        """
        Check the node against the nodes below it, before anything runs.

        Mistakes are added to `fit.problems`.

        Returns:
            The fields that the node takes and what it answers; None if unknown.
        """
        return None

    @classmethod
    def request_takers(cls, tree: Tree) -> Iterator[str | Tree]:
        """Yield the models (`name@number`) and nodes that get the node's fields unchanged."""
        yield from (child for _, child in children(tree))

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Say in one line what the node is."""
        own = {"kind", "name", *cls.children}
        settings = {key: value for key, value in tree.items() if key not in own}
        return f"{tree['kind']}{settings_text(settings)}"

    def __init__(self, tree: Tree, builder: Builder) -> None:
        """
        Build the node that answers; sets `signature` and, if there are nodes below, `nodes`.

        Args:
            tree: The resolved node.
            builder: Builds the nodes below, and gives models and functions.

        Raises:
            InvalidConfig: The tree has unknown settings, or the nodes below do not
                fit together; names the node.
        """
        raise NotImplementedError

    def require_fit(self, tree: Tree, nodes: list[Node], builder: Builder) -> Signature:
        """
        Return the signature of the node over the built nodes below it.

        Raises:
            InvalidEndpoint: They do not fit together.
        """
        problems = Problems()
        sides = [
            _side(key, child, node.signature)
            for (key, child), node in zip(children(tree), nodes, strict=True)
        ]
        signature = self.fit(NodeFit(tree, sides, True, builder.signatures, problems))
        problems.require_none(f"The graph of {builder.endpoint}")
        assert signature is not None, "all sides are known"
        return signature

    @property
    def background(self) -> bytes:
        """Return a JSON array of rows to try the node on; by default those of the nodes below."""
        return joined_background(self.nodes, self.signature.fields)

    def answer(self, batch: Batch) -> NodeAnswers:
        """
        Answer every row of a batch, in order.

        Raises:
            InvalidInput: A model refuses rows.
            ModelFailed: The node, or one below it, raised; names that node.
        """
        try:
            return self.compute(batch)
        except (ModelFailed, InvalidInput):
            raise
        except BaseException as error:
            raise node_failure(self.name, error) from error

    def compute(self, batch: Batch) -> NodeAnswers:
        """Answer every row of a batch, in order, as `Node` demands; errors get the node's name."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the node itself holds; the builder closes the nodes below it."""


def fit_graph(tree: Tree, models: Mapping[str, Signature], problems: Problems) -> Signature | None:
    """Check every node of a resolved graph against those below it, the innermost first."""
    below = list(children(tree))
    found = [(key, child, fit_graph(child, models, problems)) for key, child in below]
    sides = [_side(key, child, known) for key, child, known in found if known is not None]
    fit = NodeFit(tree, sides, len(sides) == len(below), models, problems)
    signature: Signature | None = node_kind(tree["kind"]).fit(fit)
    return signature


def _side(key: str, tree: Tree, signature: Signature) -> Side:
    return Side(key.partition(".")[2] or key, tree, signature)
