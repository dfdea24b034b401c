"""The resolved tree of a revision, as plain values: what stands below a node, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clewline.entry_points import load_entry_point
from clewline.formatting import format_duration
from clewline.store.records import Revision

Tree = dict[str, Any]

NODES = "clewline.nodes"
"""The entry-point group of kinds of nodes."""

ONLY = "model"
"""The name of the one node of an endpoint of one model."""

BELOW: dict[str, tuple[str, ...]] = {
    "model": (),
    "transform": ("then",),
    "after": ("of",),
    "route": ("arms",),
    "combine": ("branches",),
    "shadow": ("of", "shadows"),
}
"""Under which keys of our kinds other nodes stand: one, or several by name."""


def of_revision(revision: Revision) -> Tree:
    """Give the tree of a revision; that of one model alone is a single node."""
    return revision.graph or {"kind": "model", "name": ONLY, "model": revision.models[ONLY]}


def below(tree: Tree) -> Iterator[tuple[str, Tree]]:
    """Give the nodes directly below one, each with its key: `then`, `arms.champion`."""
    for key in _keys(tree["kind"]):
        child = tree.get(key)
        if isinstance(child, dict) and "kind" in child and "name" in child:
            yield key, child
        elif isinstance(child, dict):
            yield from ((f"{key}.{name}", each) for name, each in child.items())


def walk(tree: Tree) -> Iterator[Tree]:
    """Give a node and all below it, from the top."""
    yield tree
    for _, child in below(tree):
        yield from walk(child)


def functions(tree: Tree) -> list[str]:
    """List the functions that a graph names, each once."""
    named = (node.get("function") or node.get("config", {}).get("function") for node in walk(tree))
    return list(dict.fromkeys(name for name in named if isinstance(name, str)))


def title(tree: Tree) -> str:
    """
    Say what a node is, on one line.

    >>> title({"kind": "route", "how": "sticky", "config": {"weights": {"a": 0.9, "b": 0.1}}})
    'route sticky: a 0.9, b 0.1'
    """
    config = tree.get("config") or {}
    match tree["kind"]:
        case "model":
            return _model(tree)
        case "transform" | "after" as kind:
            return f"{kind} {_model(tree) if tree.get('model') else _call(tree)}"
        case "route":
            return f"route {tree['how']}{_said(config)}"
        case "combine" if tree["how"] == "function":
            return f"combine {_call(config)}"
        case "combine":
            return f"combine {tree['how']}{_said(config)}"
        case "shadow":
            return "shadow"
        case kind:
            return f"{kind}{_said({k: v for k, v in tree.items() if k not in ('kind', 'name')})}"


def _model(tree: Tree) -> str:
    options = [f"({key})" for key in ("pin", "isolate") if tree.get(key)]
    return " ".join([tree["model"] or "?", *options])


def _call(said: Tree) -> str:
    config = f" {_plain(said['config'])}" if said.get("config") else ""
    return f"{said['function']} ({said['frame']}){config}"


def _said(config: Tree) -> str:
    parts = [
        _FORMS.get(key, lambda value, key=key: f"{key} {_plain(value)}")(value)
        for key, value in config.items()
    ]
    return f": {'; '.join(parts)}" if parts else ""


def _shares(weights: dict[str, float]) -> str:
    return ", ".join(f"{arm} {share:g}" for arm, share in weights.items())


def _ramp(ramp: Tree) -> str:
    return f"to {_shares(ramp['to'])} in {format_duration(ramp['over_s'])}"


def _rules(rules: list[Tree]) -> str:
    return "; ".join(f"{_conditions(rule['if'])} → {rule['arm']}" for rule in rules)


def _conditions(conditions: list[Tree], word: str = "and") -> str:
    return f" {word} ".join(_condition(each) for each in conditions)


def _condition(said: Tree) -> str:
    if "any" in said:
        return f"({_conditions(said['any'], 'or')})"
    if "all" in said:
        return f"({_conditions(said['all'])})"
    return f"{said['field']} {said['is']} {_plain(said['value'])}"


_FORMS: dict[str, Callable[[Any], str]] = {"weights": _shares, "ramp": _ramp, "rules": _rules}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _keys(kind: str) -> tuple[str, ...]:
    known = BELOW.get(kind)
    if known is not None:
        return known
    return tuple(getattr(load_entry_point(NODES, kind), "children", ()))
