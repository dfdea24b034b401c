"""The nodes of a graph as an endpoint's file declares them, models and functions unresolved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from clewline.flow.code.frame_annotation import Frame
from clewline.serve.graph.model_import import DeclaredImport
from clewline.signature.field import Field


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A function or class of the project, and what it is given."""

    at: str
    function: str  # nodes.py:tidy
    frame: Frame | None = None  # None: as its annotation says
    config: dict[str, Any] = {}  # keyword arguments


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the graph: where it was written, and its name in the path of a prediction."""

    at: str
    name: str


class Model(Node, frozen=True, kw_only=True):
    """A model version, by number or alias, or as a file from elsewhere."""

    model: str | DeclaredImport
    pin: bool = False
    isolate: bool = False


class Transform(Node, frozen=True, kw_only=True):
    """A function, or a fitted preprocessing, before a node."""

    then: Node
    call: Call | None = None
    model: str | None = None
    isolate: bool = False  # of a fitted preprocessing
    fields: tuple[Field, ...] | None = None  # what it takes; None: what `then` takes


class After(Node, frozen=True, kw_only=True):
    """A function on the answers of a node."""

    of: Node
    call: Call


class Route(Node, frozen=True, kw_only=True):
    """One of several arms answers each row."""

    how: str
    config: dict[str, Any]
    arms: dict[str, Node]


class Combine(Node, frozen=True, kw_only=True):
    """All branches answer, and one answer is made of theirs."""

    how: str
    config: dict[str, Any]
    branches: dict[str, Node]
    call: Call | None = None  # of how == "function"
    model: str | DeclaredImport | None = None  # of how == "stack"


class Shadow(Node, frozen=True, kw_only=True):
    """Others answer too, for the log alone."""

    of: Node
    shadows: dict[str, Node]
    config: dict[str, Any] = {}


class Other(Node, frozen=True, kw_only=True):
    """A node of a kind that a plug-in offers."""

    kind: str
    config: dict[str, Any]
    children: dict[str, Node | dict[str, Node]]  # under the keys that the kind names


def children(node: Node) -> Iterator[Node]:
    """Give the nodes directly below one."""
    match node:
        case Transform():
            yield node.then
        case After():
            yield node.of
        case Route():
            yield from node.arms.values()
        case Combine():
            yield from node.branches.values()
        case Shadow():
            yield node.of
            yield from node.shadows.values()
        case Other():
            for child in node.children.values():
                yield from child.values() if isinstance(child, dict) else (child,)


def walk(node: Node) -> Iterator[Node]:
    """Give a node and all below it, from the top."""
    yield node
    for child in children(node):
        yield from walk(child)


def imports(root: Node) -> list[DeclaredImport]:
    """List the models from elsewhere that a graph names, in its order, each once."""
    found = [getattr(each, "model", None) for each in walk(root)]
    return list(dict.fromkeys(each for each in found if isinstance(each, DeclaredImport)))


def calls(node: Node) -> list[Call]:
    """List the functions that a graph names, in its order."""
    found = [getattr(each, "call", None) for each in walk(node)]
    return [call for call in found if call is not None]
