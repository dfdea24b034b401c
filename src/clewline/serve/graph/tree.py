"""The resolved graph of a revision as plain values: `{"kind": …, "name": …, …}` for each node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clewline.entry_points import load_entry_point
from clewline.store.records import Revision

Tree = dict[str, Any]

NODES = "clewline.nodes"
"""The entry-point group of node kinds."""

ONLY = "model"
"""The name of the only node of an endpoint of one model."""


def node_kind(name: str) -> Any:
    """
    Find a node kind by its name.

    Returns:
        The class, a `clewline.serve.graph.node_kind.NodeKind`. Its module imports this one.

    Raises:
        NotSupported: No installed package offers it.
    """
    return load_entry_point(NODES, name)


def of_revision(revision: Revision) -> Tree:
    """Return the tree of a revision; that of one model alone is a single node."""
    return revision.graph or {"kind": "model", "name": ONLY, "model": revision.models[ONLY]}


def children(tree: Tree) -> Iterator[tuple[str, Tree]]:
    """Yield the nodes directly below a node, each with its key: `then`, `arms.champion`."""
    for key in node_kind(tree["kind"]).children:
        child = tree.get(key)
        if isinstance(child, dict) and isinstance(child.get("kind"), str):
            yield key, child
        elif isinstance(child, dict):
            yield from ((f"{key}.{name}", each) for name, each in child.items())


def walk(tree: Tree) -> Iterator[Tree]:
    """Yield a node and all nodes below it, from the top."""
    yield tree
    for _, child in children(tree):
        yield from walk(child)


def title(tree: Tree) -> str:
    """
    Say in one line what a node is.

    >>> weights = {"weights": {"a": 0.9, "b": 0.1}}
    >>> title({"kind": "route", "name": "route", "how": "sticky", "config": weights})
    'route sticky: a 0.9, b 0.1'
    """
    text: str = node_kind(tree["kind"]).title(tree)
    return text


def function_text(call: dict[str, Any]) -> str:
    """
    Write a pinned function with its frame and config.

    >>> function_text({"function": "nodes.py:tidy", "frame": "rows", "config": {"by": 2}})
    'nodes.py:tidy (rows) by 2'
    """
    config = f" {plain_text(call['config'])}" if call.get("config") else ""
    return f"{call['function']} ({call['frame']}){config}"


def settings_text(settings: dict[str, Any]) -> str:
    """Write settings behind a title: `: key value; key value`, or nothing."""
    parts = [f"{key} {plain_text(value)}" for key, value in settings.items()]
    return f": {'; '.join(parts)}" if parts else ""


def plain_text(value: Any) -> str:
    """
    Write a plain value as a person reads it.

    >>> plain_text({"a": 0.9, "b": [1, True]})
    'a 0.9, b 1, true'
    """
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
