"""
What stands behind an endpoint: a tree of nodes, of which a model is the first kind.

A node takes a batch and answers every row of it. Kinds register under the
entry-point group `fairlead.nodes`; a kind that has nodes below it (a route, a
transform) builds them through the same door.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol

import msgspec

from fairlead.errors import NotSupported
from fairlead.model.runtime import Outputs
from fairlead.serve.pool import ModelPool
from fairlead.signature.columns import Columns
from fairlead.signature.field import Signature

GROUP = "fairlead.nodes"


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Checked rows that go through the graph together, in order."""

    columns: Columns  # n rows
    ids: list[bytes]  # n prediction ids of 16 bytes
    entities: list[str | None]  # n; whom a row is about, where its caller said so


class Answered(msgspec.Struct, frozen=True, eq=False):
    """What a node says of a batch."""

    outputs: Outputs  # n answers
    model: str  # name@number that gave them
    path: tuple[tuple[str, float], ...]  # nodes gone through, in order, each with microseconds


class Node(Protocol):
    """
    A part of an endpoint's graph.

    Called from one thread at a time, not always the same one. The answer to a
    row depends on the row, its id and its entity, never on its neighbours. The
    batch is the caller's: a node must not change its arrays. An exception fails
    the whole batch.
    """

    signature: Signature
    background: bytes  # JSON array of rows to try it on

    def answer(self, batch: Batch) -> Answered: ...

    def close(self) -> None:
        """Give back what the node holds; no call comes after it."""


class NodeKind(Protocol):
    """Makes the nodes of one kind."""

    def build(self, name: str, config: Any, pool: ModelPool) -> Node:
        """
        Make a node.

        Args:
            name: What the node is called in the path of a prediction.
            config: What the pinned revision says of it; for a model `name@number`.
            pool: Where loaded models come from.
        """


def node_kind(name: str) -> NodeKind:
    """
    Find a kind of node by its name.

    Raises:
        NotSupported: Nothing that is installed offers it.
    """
    found = entry_points(group=GROUP, name=name)
    if not found:
        offered = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
        raise NotSupported(
            f"There is no kind of node called {name!r}; installed: {offered}.",
            "Install the package that offers it, or install fairlead again if it is one of ours.",
        )
    kind: NodeKind = next(iter(found)).load()
    return kind
