"""Builds the nodes of one revision, and gives back what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

from clewline.errors import IntegrityError, InvalidConfig
from clewline.model.isolation.isolated_predictor import LOAD_S, IsolationLimits
from clewline.serve.graph.fields import AlignedNode
from clewline.serve.graph.functions import ProjectFunctions
from clewline.serve.graph.node import Batch, BuiltNode, Node, NodeAnswers
from clewline.serve.graph.tree import Tree, node_kind, of_revision, walk
from clewline.serve.model_cache.loaded_models import Isolation, LoadedModel, SharedModels
from clewline.signature.field import Output, Signature
from clewline.store.records import Revision, RouterState

CALLS_AT_ONCE = 3
"""Batches of a revision that may wait for each other at the same isolated model."""
RouterStates = Callable[[str], RouterState | None]
"""The current state of a route's router, by the name of the node."""


class ShadowGroup(NamedTuple):
    """The shadows of one revision, and what their answers are compared with."""

    revision: Revision
    shadows: dict[str, AlignedNode]
    output: Output
    close: Callable[[], None]  # gives back the shadows' models


class Shadowing(Protocol):
    """Asks the shadows of an endpoint, off the path of the answer."""

    def offer(self, group: ShadowGroup, batch: Batch, answers: NodeAnswers) -> None:
        """Ask the shadows of a group about a batch that was answered, or drop it. Never waits."""

    def retire(self, group: ShadowGroup) -> None:
        """Close a group after its shadows were asked about the rows that wait for them."""


def isolation_of(isolate: bool | Tree | None, revision: Revision) -> Isolation | None:
    """Return the process of a model by the `isolate` of its node; None for the server's own."""
    if not isolate:
        return None
    timeout_ms = revision.spec.get("timeout_ms")
    limits = {} if timeout_ms is None else {"timeout_s": timeout_ms / 1000}
    stated = isolate if isinstance(isolate, dict) else {}
    return Isolation(revision.endpoint, IsolationLimits(**limits | stated))


def longest_isolated_s(revision: Revision) -> float:
    """Return how long a batch may wait for isolated models, each started anew and asked; or 0."""
    found = (isolation_of(node.get("isolate"), revision) for node in walk(of_revision(revision)))
    once = sum(LOAD_S + each.limits.timeout_s for each in found if each is not None)
    return once * CALLS_AT_ONCE


class Builder:
    """
    Builds the nodes of one revision, and gives back what they hold.

    Args:
        revision: The revision.
        pool: Source of the loaded models.
        functions: The project's functions, as the revision's code has them.
        threads: Run branches in parallel; None: one after another.
        states: The states of the routers; None: no router has learned anything.
        shadowing: Asks the shadows; None: nobody does, as in a replay.
    """

    def __init__(
        self,
        revision: Revision,
        pool: SharedModels,
        *,
        functions: ProjectFunctions | None = None,
        threads: Executor | None = None,
        states: RouterStates | None = None,
        shadowing: Shadowing | None = None,
    ) -> None:
        self.revision = revision
        self.endpoint = revision.endpoint
        self.since = revision.created  # when it was made, in seconds since the epoch
        self.has_checksums = of_revision(revision)["kind"] != "model"
        self.is_live = False  # in a trial shadows are not asked
        self.threads = threads
        self.shadowing = shadowing
        self._pool = pool
        self._functions = functions
        self._states = states
        self.models: list[LoadedModel] = []  # of every node, in the order of the tree
        self._names: set[str] = set()
        self._held = ExitStack()

    def node(self, tree: Tree) -> BuiltNode:
        """
        Build the node of a tree, with all nodes below it.

        Raises:
            NotSupported: No such kind is installed.
            InvalidConfig: Two nodes have the same name, or nodes do not fit together.
        """
        name, kind = tree.get("name"), tree.get("kind")
        if not isinstance(name, str) or not name or not isinstance(kind, str):
            raise InvalidConfig(f"A node has kind {kind!r} and name {name!r}.", "It needs both.")
        if name in self._names:
            raise InvalidConfig(
                f"Two nodes of {self.endpoint} are called {name!r}.", "Rename one of them."
            )
        self._names.add(name)
        node = node_kind(kind)(tree, self)
        node.name = name
        self._held.callback(node.close)
        built: BuiltNode = node
        return built

    def nodes(self, tree: Tree, key: str) -> dict[str, Node]:
        """
        Build the nodes that stand by name under a key.

        Raises:
            InvalidConfig: There are none.
        """
        trees = tree.get(key)
        if not isinstance(trees, dict) or not trees:
            raise InvalidConfig(f"{tree['name']!r} has no {key}.", "Name one or more.")
        return {name: self.node(each) for name, each in trees.items()}

    def model(self, ref: str, isolate: bool | Tree = False) -> LoadedModel:
        """
        Return a model version; it is given back when the revision is closed.

        Args:
            ref: `name@number`.
            isolate: Whether it runs in its own process, perhaps with limits of that.

        Raises:
            NotFound: Its package is missing.
            IntegrityError: The package is not the one that was sealed and pinned.
        """
        model = self._pool.take(ref, isolation_of(isolate, self.revision))
        self._held.callback(model.release)
        self.models.append(model)
        return model

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """Return the signatures of the models that were built, by `name@number`."""
        return {model.ref: model.signature for model in self.models}

    def function(self, text: str, config: dict[str, Any] | None = None) -> Callable[..., Any]:
        """
        Return a function of the project, or the object of a class, by `FILE.py:NAME`.

        Raises:
            IntegrityError: The revision pins no code.
            NotFound, InvalidConfig: The code has no such function, or it cannot be built.
        """
        if self._functions is None:
            raise IntegrityError(
                f"The graph of {self.endpoint} names {text}, but its revision pins no code.",
                "Apply the endpoint again.",
            )
        return self._functions.get(text, config)

    def state(self, node: str) -> RouterState | None:
        """Return what the router of a node has learned so far; None for nothing yet."""
        return None if self._states is None else self._states(node)

    def close_later(self, close: Callable[[], None]) -> None:
        """Call `close` after the nodes are closed."""
        self._held.callback(close)

    def separate(self) -> Builder:
        """Return a builder for nodes of the same graph that are closed at another time."""
        other = Builder(
            self.revision,
            self._pool,
            functions=self._functions,
            states=self._states,
            shadowing=self.shadowing,
        )
        other.models, other._names = self.models, self._names
        return other

    def close(self) -> None:
        """Close every node and give back every model, the last one first."""
        self._held.close()
