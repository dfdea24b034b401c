"""
What stands behind an endpoint: a tree of nodes.

    model       a sealed model version
    transform   a function or fitted preprocessing, before what stands below it
    after       a function on the answers
    route       one of its arms answers each row
    combine     all of its branches answer, and one answer is made of theirs
    shadow      others are asked beside what answers; theirs are logged and compared

A node takes a batch and answers every row of it. Kinds register under the
entry-point group `clewline.nodes`; a kind that has nodes below it builds them
through its `Builder`. `Revision.graph` holds the tree, `tree.of_revision` gives it
for revisions of one model too.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import Any, Protocol

from clewline.entry_points import load_entry_point
from clewline.errors import IntegrityError, InvalidConfig
from clewline.serve.graph.batch import Batch, NodeAnswers
from clewline.serve.graph.tree import NODES, of_revision
from clewline.serve.model_cache.loaded_models import LoadedModel, SharedModels
from clewline.signature.field import Signature
from clewline.store.records import Revision, RouterState

__all__ = ["Batch", "Builder", "Node", "NodeAnswers", "NodeKind", "Shadowing", "node_kind"]

States = Callable[[str], RouterState | None]
"""The state of a route's router now, by the name of the node."""


class Node(Protocol):
    """
    A part of an endpoint's graph.

    Called from one thread at a time, not always the same one. The answer to a
    row depends on the row, its id and its entity, never on its neighbours. The
    batch is the caller's: a node must not change its arrays. An exception fails
    the whole batch; the row of an `InvalidInput` is a row of the batch.
    """

    signature: Signature
    background: bytes  # JSON array of rows to try it on

    def answer(self, batch: Batch) -> NodeAnswers: ...

    def close(self) -> None:
        """
        Give back what the node itself holds; no call comes after it.

        Nodes below it and models are given back by the builder.
        """


class NodeKind(Protocol):
    """
    Makes the nodes of one kind.

    A kind with nodes below it may say in `children` under which keys they stand.
    """

    def build(self, tree: dict[str, Any], build: Builder) -> Node:
        """
        Make a node.

        Args:
            tree: What the pinned revision says of it: its `kind`, its `name`, the
                keys of its kind, and the trees of the nodes below it.
            build: Makes those, and gives models and functions.

        Raises:
            InvalidConfig: The tree says what this kind does not know, or what is
                below does not fit together; names the node.
        """


class Functions(Protocol):
    """The project's functions, as `clewline.serve.graph.functions` loads them from a snapshot."""

    def get(self, text: str, config: dict[str, Any] | None = None) -> Callable[..., Any]: ...


class Shadowing(Protocol):
    """Asks the shadows of an endpoint, off the path of the answer."""

    def offer(self, seat: Any, batch: Batch, answered: NodeAnswers) -> None:
        """Ask the shadows of a seat about a batch that was answered, or drop it. Never waits."""

    def retire(self, seat: Any) -> None:
        """Close a seat, when none of its shadows is being asked."""


class Builder:
    """
    Makes the nodes of one revision, and gives back what they hold.

    Args:
        revision: Whose graph.
        pool: Where loaded models come from.
        functions: The project's functions, as the revision's code has them.
        threads: Where branches run beside each other; None: one after another.
        states: The states of the routes; None: no route has learned anything.
        shadowing: Who asks shadows; None: nobody does, as in a replay.
    """

    def __init__(
        self,
        revision: Revision,
        pool: SharedModels,
        *,
        functions: Functions | None = None,
        threads: Executor | None = None,
        states: States | None = None,
        shadowing: Shadowing | None = None,
    ) -> None:
        self.revision = revision
        self.endpoint = revision.endpoint
        self.since = revision.created  # when it first went live, in seconds since the epoch
        self.has_marks = of_revision(revision)["kind"] != "model"  # whether nodes make marks
        self.is_live = False  # until rows are somebody's: shadows are not asked about a trial
        self.threads = threads
        self.shadowing = shadowing
        self._pool = pool
        self._functions = functions
        self._states = states
        self.models: list[LoadedModel] = []  # of every node, in the order of the tree
        self._names: set[str] = set()
        self._held = ExitStack()

    def node(self, tree: dict[str, Any]) -> Node:
        """
        Make the node of a tree, with all below it.

        Raises:
            NotSupported: No such kind is installed.
            InvalidConfig: Two nodes have one name, or a node does not fit.
        """
        name, kind = tree.get("name"), tree.get("kind")
        if not isinstance(name, str) or not name or not isinstance(kind, str):
            raise InvalidConfig(f"A node says kind {kind!r} and name {name!r}.", "It needs both.")
        if name in self._names:
            raise InvalidConfig(
                f"Two nodes of {self.endpoint} are called {name!r}.", "Rename one of them."
            )
        self._names.add(name)
        node = node_kind(kind).build(tree, self)
        self._held.callback(node.close)
        return node

    @property
    def timeout_s(self) -> float | None:
        """Within which an answer of the endpoint is due; None where it states none."""
        stated = self.revision.spec.get("timeout_ms")
        return None if stated is None else stated / 1e3

    def model(self, ref: str, *, isolate: bool = False) -> LoadedModel:
        """
        Get a model version; it is given back when the revision is closed.

        Args:
            ref: `name@number`.
            isolate: Whether it is to live in a process of its own.

        Raises:
            NotFound: Its package is not there.
            IntegrityError: The package is not what was sealed and pinned.
        """
        model = self._pool.take(ref, isolate=isolate)
        self._held.callback(model.release)
        self.models.append(model)
        return model

    def function(self, text: str, config: dict[str, Any] | None = None) -> Callable[..., Any]:
        """
        Get a function of the project, or the object of a class, by `FILE.py:NAME`.

        Raises:
            NotFound, InvalidConfig: The code has no such function, or it cannot be built.
        """
        if self._functions is None:
            raise IntegrityError(
                f"The graph of {self.endpoint} names {text}, and its revision pins no code.",
                "Apply the endpoint again.",
            )
        return self._functions.get(text, config)

    def state(self, node: str) -> RouterState | None:
        """Get what the router of a node has learned as of now; None when it has not yet."""
        return None if self._states is None else self._states(node)

    def hold(self, close: Callable[[], None]) -> None:
        """Have something closed with the nodes, after them."""
        self._held.callback(close)

    def apart(self) -> Builder:
        """Give a builder for nodes of the same graph that are closed at another time."""
        other = Builder(
            self.revision,
            self._pool,
            functions=self._functions,
            threads=None,
            states=self._states,
            shadowing=self.shadowing,
        )
        other.models, other._names = self.models, self._names
        return other

    def close(self) -> None:
        """Close every node and give back every model, the last built first."""
        self._held.close()


def node_kind(name: str) -> NodeKind:
    """
    Find a kind of node by its name.

    Raises:
        NotSupported: Nothing that is installed offers it.
    """
    kind: NodeKind = load_entry_point(NODES, name)
    return kind
